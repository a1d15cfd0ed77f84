"""Steering a run that exists: pause it, end it, go on with it."""

from __future__ import annotations

import time

from hpcft.ending import close_gone, close_waiting
from hpcft.errors import Fault, UserError
from hpcft.launch import chain
from hpcft.launch.scheduler import scheduler
from hpcft.launch.status import LIVE, read_status
from hpcft.rundir import JobDir, RunDir, write_json, write_whole


def resume(run: RunDir) -> list[JobDir]:
    """Queue jobs behind the last one of a run that is over but not finished; also settles a half-done submit.

    Raises UserError for a finished run, and for one that runs or waits: a second chain would only stand in its way.
    """
    status = read_status([run])[0]
    half = status.state == "half-submitted"
    if status.state == "finished":
        raise UserError(Fault(run.name, f"is finished: {run.final_model} holds the model.", "Submit a new run."))
    if status.state in ("running", "queued"):
        fix = f"`hpcft status {run.name}` shows its jobs."
        raise UserError(Fault(run.name, f"is {status.state} already.", fix))
    if status.state == "unknown":
        raise UserError(Fault(run.name, "Slurm does not say whether it still runs.", "Try again later."))
    if not half and any(job.state in LIVE for job in status.jobs):
        raise UserError(Fault(run.name, "has a job that is still ending.", "Try again in a minute."))
    with chain.submitting(run) as mine:
        if not mine:
            raise UserError(Fault(run.name, "is being submitted by another hpcft.", "Try again in a minute."))
        close_broken(run)
        # Before any job is queued: the first one looks here to see which crashes are forgiven.
        last = max((job.number for job in run.jobs() if job.started), default=0)
        if not half:
            submitted = max((job.number for job in run.jobs() if job.submitted), default=0)
            write_json(run.path / "resume.json", {"after": last, "submitted": submitted, "time": time.time()})
        run.stop_file.unlink(missing_ok=True)
        (run.path / "halted.json").unlink(missing_ok=True)
        return chain.fill(run)


def close_broken(run: RunDir) -> None:
    """Write the ending of jobs that are gone without one. Call it when the scheduler says that none is alive."""
    newest = max(run.saved_steps(), default=None)
    for job in run.jobs():
        if job.submitted and job.started and not job.ended:
            close_gone(job, newest, "hpcft resume")


def stop(run: RunDir) -> bool:
    """Whether a job runs that will save first; no other begins. Raises UserError if there is nothing to pause."""
    if run.finished:
        raise UserError(Fault(run.name, f"is finished: {run.final_model} holds the model.", "Nothing is left to stop."))
    run.stop_file.touch(mode=0o600)
    chain.cancel_queued(run, behind=max((job.number for job in run.jobs() if job.started), default=0))
    return any(job.started and not job.ended for job in run.jobs())


def cancel(run: RunDir) -> list[JobDir]:
    """End every job of a run, queued and running, in one call; those that were open. A half-done submit is undone."""
    cluster = chain.run_cluster(run)
    queue = scheduler(cluster)
    if not (run.path / "queued.json").exists() and not any(job.started for job in run.jobs()):
        jobs = [job for job in run.jobs() if job.submitted]
        with chain.submitting(run) as mine:
            if not mine:
                raise UserError(Fault(run.name, "is being submitted by another hpcft.", "Try again in a minute."))
            chain.discard(run)
        return jobs
    open_jobs = [job for job in run.jobs() if job.submitted and not job.ended]
    # One call for all, those without record too: were one left out, the end of another would start it.
    marked = queue.queue(run).held
    # The file makes a job that begins meanwhile leave at once: on this machine the keeper starts the next one.
    write_whole(run.stop_file, chain.CANCELLED)
    queue.cancel(open_jobs, list(marked))
    for job in open_jobs:
        close_waiting(job)
    return open_jobs
