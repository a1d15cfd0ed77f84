"""The chain: a run's jobs queued behind each other, so that a kill at any instant leaves no half and no double."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster, cluster_from
from hpcft.launch.condaenv import Env
from hpcft.launch.plan import Plan
from hpcft.launch.scheduler import Scheduler, scheduler
from hpcft.launch.submission import Submission, make_submission
from hpcft.rundir import JobDir, Lock, RunDir, find_runs, locked, make_durable, make_root, write_json, write_whole

FREE_NAMES = 10_000
SUBMIT_PATIENCE = 10.0
"""Seconds to wait for another submit of the same run."""
CANCELLED = b"cancelled\n"
"""In a run's STOP file: not paused by `hpcft stop`, but ended by `hpcft cancel`."""


def submit(plan: Plan, root: Path) -> RunDir:
    """A new run with its first jobs queued; or the same submit, killed half-way before, brought to its end.

    Files are made in a hidden folder that is renamed; jobs are submitted held, recorded, and then released
    together. What a kill leaves is a run without queued.json, which the next submit, or `hpcft resume`, settles.
    """
    make_root(root)
    _clear_unfinished(root)
    given = _given(plan)
    for run in find_runs(root):
        if (run.path / "queued.json").exists() or not _same_name(run, plan.recipe.name):
            continue
        with _submitting(run) as mine:
            if not mine or (run.path / "queued.json").exists():
                continue  # another submit is at work on it, or has been
            if {**(run.submission or {}), "time": None} == {**given, "time": None}:
                fill(run)
                return run
            discard(run)
    lock, run = _make_run(plan, root, given)
    try:
        fill(run)
    except UserError:
        discard(run)
        raise
    finally:
        lock.drop()
    return run


def fill(run: RunDir) -> list[JobDir]:
    """Queue what the head of the chain lacks, release it, and mark the run as queued; also after a kill."""
    cluster = run_cluster(run)
    resources = run.recipe.resources
    forgiven = max((job.number for job in run.jobs() if job.started), default=0)
    wanted = 1 + resources.queued if cluster.jobs_may_submit else cluster.max_submit or resources.jobs
    running = [job for job in run.jobs() if job.started and not job.ended]  # of a submit that was killed at its end
    waiting = _fill_up(run, wanted - len(running), running, cluster)
    write_json(run.path / "queued.json", {"time": time.time(), "forgiven": forgiven})
    return waiting


def _fill_up(run: RunDir, wanted: int, running: list[JobDir], cluster: Cluster) -> list[JobDir]:
    """All jobs that wait, released: those in the queue already, and new ones until there are as many as wanted.

    Heals what a kill or a hand has done to the queue: a job without record is cancelled, a record whose job is
    gone is closed, and a job that was held and never released is released with the new ones.
    """
    queue = scheduler(cluster)
    marked = queue.marked(run)
    jobs = [job for job in run.jobs() if job.submitted]
    queue.cancel([], [number for number in marked if number not in {job.slurm_id for job in jobs}])
    waiting = []
    for job in jobs:
        if job.slurm_id in marked and not job.started and not job.ended:
            waiting.append(job)
        elif not job.started and not job.ended:
            write_json(job.path / "ended.json", {"ending": "cancelled", "time": time.time(), "found_by": "hpcft"})
    held = [job for job in waiting if marked[job.slurm_id or ""]]
    last = max((job.number for job in jobs), default=0)
    with ThreadPoolExecutor() as pool:  # fsync takes its time, in which the next sbatch is under way
        syncs = []
        for number in range(last + 1, min(last + wanted - len(waiting), run.recipe.resources.jobs) + 1):
            waiting.append(_queue_one(run, number, [*running, *waiting], cluster, queue))
            held.append(waiting[-1])
            syncs.append(pool.submit(make_durable, waiting[-1].path / "submitted.json"))
        for sync in syncs:
            sync.result()
    queue.release(held)
    return waiting


def resume(run: RunDir) -> list[JobDir]:
    """Queue jobs behind the last one of a run that is over but not finished; also settles a half-done submit.

    Raises UserError for a finished run, and for one that runs or waits: a second chain would only stand in its way.
    """
    from hpcft.launch.status import LIVE, read_status

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
    with _submitting(run) as mine:
        if not mine:
            raise UserError(Fault(run.name, "another hpcft is submitting it at this moment."))
        if not half and run.recipe.resources.jobs <= max(
            (job.number for job in run.jobs() if job.submitted), default=0
        ):
            limit = run.recipe.resources.jobs
            raise UserError(Fault(run.name, f"has had its {limit} jobs (resources.jobs).", "Submit it with more."))
        close_broken(run)
        run.stop_file.unlink(missing_ok=True)
        (run.path / "halted.json").unlink(missing_ok=True)
        return fill(run)


def close_broken(run: RunDir) -> None:
    """Write the ending of jobs that are gone without one. Call it when the scheduler says that none is alive."""
    for job in run.jobs():
        if job.submitted and job.started and not job.ended:
            beat = job.heartbeat or {}
            facts = {key: beat[key] for key in ("first_step", "last_step", "loss", "seconds") if key in beat}
            ended: dict[str, object] = {"ending": "killed", "time": beat.get("time", job.started["time"])}
            write_json(job.path / "ended.json", {**facts, **ended, "found_by": "hpcft resume"})


def stop(run: RunDir) -> None:
    """Ask a run to save and pause. Raises UserError if there is nothing to pause."""
    if run.finished:
        raise UserError(Fault(run.name, "is finished already."))
    run.stop_file.touch(mode=0o600)
    cancel_queued(run, behind=max((job.number for job in run.jobs() if job.started), default=0))


def cancel(run: RunDir) -> list[JobDir]:
    """End every job of a run, queued and running, in one call; those that were open. A half-done submit is undone."""
    cluster = run_cluster(run)
    queue = scheduler(cluster)
    if not (run.path / "queued.json").exists() and not any(job.started for job in run.jobs()):
        jobs = [job for job in run.jobs() if job.submitted]
        discard(run)
        return jobs
    open_jobs = [job for job in run.jobs() if job.submitted and not job.ended]
    # One call for all, those without record too: were one left out, the end of another would start it.
    marked = queue.marked(run)
    # The file makes a job that begins meanwhile leave at once: on this machine the keeper starts the next one.
    write_whole(run.stop_file, CANCELLED)
    queue.cancel(open_jobs, list(marked))
    for job in open_jobs:
        if job.started is None and job.ended is None:
            write_json(job.path / "ended.json", {"ending": "cancelled", "time": time.time()})
    return open_jobs


def top_up(run: RunDir, running: int) -> list[JobDir]:
    """Jobs that wait behind the running one, as many as there should be; called in each job and by the keeper."""
    cluster = run_cluster(run)
    over = run.finished or run.halted or run.stop_file.exists()
    if over or not cluster.jobs_may_submit:
        return []
    me = [job for job in run.jobs() if job.number == running and job.submitted][-1:]
    return _fill_up(run, run.recipe.resources.queued, me, cluster)


def _queue_one(run: RunDir, number: int, before: list[JobDir], cluster: Cluster, queue: Scheduler) -> JobDir:
    """Submit one job, held, and record it; the record is not durable yet."""
    # After all that may be alive, not only the last: were that one cancelled by hand, this would start too early.
    after = tuple(dict.fromkeys(job.slurm_id for job in before if job.slurm_id and not job.ended))
    submission = rebuild_submission(run, number, after)
    submission.folder.mkdir(parents=True, exist_ok=True)
    slurm_id = queue.submit(submission)
    job = run.job(number)
    record = {
        "slurm_id": slurm_id,
        "cluster": cluster.name,
        "time": time.time(),
        "walltime": submission.walltime,
    }
    write_json(job.path / "submitted.json", {**record, "after": list(after)}, durable=False)
    return job


def cancel_queued(run: RunDir, behind: int = 0) -> list[JobDir]:
    """Take every job behind this number out of the queue; those it took out."""
    waiting = [job for job in run.jobs() if job.number > behind and job.submitted and not job.started]
    waiting = [job for job in waiting if not job.ended]
    scheduler(run_cluster(run)).cancel(waiting)
    for job in waiting:
        if job.started is None and job.ended is None:
            write_json(job.path / "ended.json", {"ending": "cancelled", "time": time.time()})
    return waiting


def discard(run: RunDir) -> None:
    """Undo a submit that never came to its end: its jobs, all still held, and its directory."""
    queue = scheduler(run_cluster(run))
    jobs = [job for job in run.jobs() if job.submitted]
    if any(job.started for job in jobs):
        write_json(run.path / "queued.json", {"time": time.time(), "forgiven": 0})
        return  # it had been released after all: it is a run
    queue.cancel(jobs, list(queue.marked(run)))
    shutil.rmtree(run.path)


def run_cluster(run: RunDir) -> Cluster:
    """The cluster as it was when the run was submitted."""
    record = run.submission
    if record is None:
        raise UserError(Fault(str(run.path), "holds no submission.json; it is no whole run."))
    return cluster_from(record["cluster"], run.path / "submission.json")


def run_env(run: RunDir) -> Env:
    """The env as it was when the run was submitted."""
    record = run.submission
    assert record is not None  # run_cluster was there first
    return Env(Path(record["env"]))


def rebuild_submission(run: RunDir, number: int, after: tuple[str, ...]) -> Submission:
    """The submission of a job, from the run's own records."""
    return make_submission(run, number, after, run.recipe, run_cluster(run), run_env(run))


def _given(plan: Plan) -> dict[str, object]:
    given: dict[str, object] = {"recipe": plan.recipe.model_dump(mode="json")}
    return {**given, "cluster": plan.cluster.model_dump(mode="json"), "env": str(plan.env.prefix)}


def _same_name(run: RunDir, name: str) -> bool:
    base, dash, number = run.name.rpartition("-")
    return run.name == name or (base == name and bool(dash) and number.isdigit())


def _submit_lock(folder: Path) -> Lock:
    # sbatch holds it too: one that outlives a killed hpcft would else queue its job behind the next one's back.
    return Lock(folder / "submit.lock", inherited=True)


def _submitting(run: RunDir) -> contextlib.AbstractContextManager[bool]:
    """The run's submit lock, once whoever was killed with sbatch at work has let go of it."""
    return locked(_submit_lock(run.path).path, SUBMIT_PATIENCE, inherited=True)


def _clear_unfinished(root: Path) -> None:
    """Remove hidden folders of submits that were killed before they had a name."""
    for path in root.glob(".new-*"):
        with locked(_submit_lock(path).path) as mine:
            if mine:
                shutil.rmtree(path, ignore_errors=True)


def _make_run(plan: Plan, root: Path, given: dict[str, object]) -> tuple[Lock, RunDir]:
    """A run directory with all that jobs read, under the first free name, and its submit lock, which is ours."""
    folder = root / f".new-{uuid.uuid4().hex[:12]}"
    folder.mkdir(mode=0o700)
    lock = _submit_lock(folder)
    lock.take()
    run, recipe = RunDir(folder), plan.recipe
    (folder / "jobs").mkdir(mode=0o700)
    shutil.copy(plan.file.path, folder / "recipe.yaml")
    write_json(folder / "submission.json", {**given, "time": time.time()}, durable=False)
    with ThreadPoolExecutor() as pool:
        sync = pool.submit(make_durable, folder / "submission.json")
        source = Path(hpcft.__file__).parent
        shutil.copytree(source, run.code / "hpcft", ignore=shutil.ignore_patterns("__pycache__"))
        provenance = {"overrides": list(plan.file.overrides), **git_state(plan.file.path)}
        write_json(folder / "provenance.json", provenance, durable=False)
        sync.result()
    for number in range(1, FREE_NAMES):
        name = recipe.name if number == 1 else f"{recipe.name}-{number}"
        final = root / name
        if final.exists():
            continue
        if recipe.data.template:
            shutil.copy(recipe.data.template, folder / "template.md")
            data = recipe.data.model_copy(update={"template": str(final / "template.md")})
            recipe = recipe.model_copy(update={"data": data})
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        with contextlib.suppress(OSError):  # taken: rename does not replace a folder that holds something
            folder.rename(final)
            lock.path = final / "submit.lock"
            return lock, RunDir(final)
        recipe = plan.recipe
    raise UserError(Fault(str(root), f'holds {FREE_NAMES} runs named "{plan.recipe.name}".', "Change the name."))


def git_state(path: Path) -> dict[str, str | None]:
    """{git_sha, git_diff} of the checkout around this file; None where there is no git or no checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(path.absolute().parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, errors="replace")
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD")
    return {"git_sha": sha.strip() if sha else None, "git_diff": git("diff", "HEAD") if sha else None}
