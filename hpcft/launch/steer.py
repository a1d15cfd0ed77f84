"""Steering a run that exists: pause it, end it, go on with it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcft.disk import write_json, write_whole
from hpcft.ending import close_gone, close_waiting, last_granted
from hpcft.errors import Fault, UserError
from hpcft.launch import chain, changes, sweep
from hpcft.launch.drift import drift, tokenised
from hpcft.launch.envdrift import env_notes
from hpcft.launch.envfit import env_faults
from hpcft.launch.fit import fit
from hpcft.launch.inputs import value_faults
from hpcft.launch.jobstatus import LIVE
from hpcft.launch.provenance import data_files
from hpcft.launch.rowcheck import data_faults
from hpcft.launch.scheduler import scheduler
from hpcft.launch.status import read_status
from hpcft.rundir import CANCELLED, JobDir, RunDir


@dataclass(frozen=True)
class Resumed:
    """What a resume did."""

    waiting: list[JobDir]
    changed: list[str]
    """What is otherwise than before, in words."""
    notes: list[str]
    """What has changed outside the run and does not matter to it."""


def resume(run: RunDir, overrides: Sequence[str] = ()) -> Resumed:
    """Queue jobs behind the last one of a run that is over but not finished; also settles a half-done submit.

    Raises UserError for a finished run, for one that runs or waits (a second chain would only stand in its way), and
    with every reason why it cannot go on so.
    """
    with chain.alone(run):  # two resumes at once would each take the other's jobs for dead
        half = _resumable(run, overrides)
        change, notes = _checked(run, overrides)
        close_broken(run)
        changes.record(run, change, "resume")
        # Before any job is queued: the first one looks here to see which crashes are forgiven.
        last = max((job.number for job in run.jobs() if job.started), default=0)
        if not half:
            submitted = max((job.number for job in run.jobs() if job.submitted), default=0)
            write_json(run.path / "resume.json", {"after": last, "submitted": submitted, "time": time.time()})
        run.stop_file.unlink(missing_ok=True)
        for name in ("halted.json", "excluded.json"):  # whoever resumes has looked at why, and at the nodes
            (run.path / name).unlink(missing_ok=True)
        return Resumed(chain.fill(run), change.words(), notes)


def _resumable(run: RunDir, overrides: Sequence[str]) -> bool:
    """Whether its submit was killed half-way. Raises UserError for a run that cannot be resumed now."""
    status = read_status([run])[0]
    half = status.state in ("half-submitted", "waiting")
    if status.state == "finished":
        raise UserError(Fault(run.name, f"is finished: {run.final_model} holds the model.", "Submit a new run."))
    if status.state in ("running", "queued"):
        fix = f"`hpcft status {run.name}` shows its jobs."
        if overrides:
            fix = f"`hpcft stop {run.name}` pauses it after a save; then it can be changed."
        raise UserError(Fault(run.name, f"is {status.state} already.", fix))
    if status.state == "unknown":
        raise UserError(Fault(run.name, "Slurm does not say whether it still runs.", "Try again later."))
    if not half and any(job.state in LIVE for job in status.jobs):
        raise UserError(Fault(run.name, "has a job that is still ending.", "Try again in a minute."))
    if half and overrides:
        fix = f"`hpcft resume {run.name}` completes it as it is, `hpcft cancel {run.name}` undoes it."
        what = "waits" if status.state == "waiting" else "is half submitted"
        raise UserError(Fault(run.name, f"{what}, and cannot change meanwhile.", fix))
    return half


def _checked(run: RunDir, overrides: Sequence[str]) -> tuple[changes.Change, list[str]]:
    """What changes, and what has changed outside, once all is well. Raises UserError with all faults at once."""
    file, change, faults = changes.standing(run, overrides)
    faults += value_faults(file)
    if not all(tokenised(run, key) for key in data_files(file.recipe) if key != "test"):
        faults += data_faults(file)
    cluster = chain.run_cluster(run)
    faults += fit(file, cluster)
    env = chain.run_env(run)
    if os.access(env.python, os.X_OK):
        faults += env_faults(env, file, cluster)
    else:
        faults.append(Fault(run.name, f"{env.python}, the python of its env, cannot be run.", "Put that env back."))
    more, notes = drift(run, file)
    if faults := [*faults, *more]:
        raise UserError(list(dict.fromkeys(faults)))
    return change, [*notes, *env_notes(run, env)]


def extend(run: RunDir, jobs: int) -> tuple[int, bool]:
    """(the last job that the chain may have now, whether it goes on by itself), after so many more were granted.

    A chain that has used up its jobs goes on at once. Raises UserError for a finished run.
    """
    with chain.alone(run):
        status = read_status([run])[0]
        if run.finished:
            raise UserError(Fault(run.name, "is finished.", "It needs no more jobs."))
        if status.state == "half-submitted":
            raise UserError(Fault(run.name, "is half submitted.", f"`hpcft resume {run.name}` completes it first."))
        most = run.recipe.resources.jobs + jobs
        _, change, faults = changes.standing(run, [f"resources.jobs={most}"])
        if faults:
            raise UserError(faults)
        changes.record(run, change, "extend")
        if status.state == "broken off":
            close_broken(run)
        goes_on = status.state in ("running", "queued", "broken off")
        if goes_on:
            chain.fill(run)
    return last_granted(run), goes_on


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
        with chain.alone(run):
            chain.discard(run)
        return jobs
    open_jobs = [job for job in run.jobs() if job.submitted and not job.ended]
    # One call for all, those without record too: were one left out, the end of another would start it.
    marked = queue.queue(run).held
    # The file makes a job that begins meanwhile leave at once: on this machine the keeper starts the next one.
    write_whole(run.stop_file, CANCELLED)
    queue.cancel(open_jobs, list(marked))
    for job in open_jobs:
        close_waiting(job)
    sweep.start_next(run)  # no job of it may be left that would do so
    return open_jobs
