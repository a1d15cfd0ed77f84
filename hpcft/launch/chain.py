"""The chain: a run's jobs queued behind each other, so that a kill at any instant leaves no half and no double."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hpcft
from hpcft.disk import Lock, locked, make_durable, write_json
from hpcft.ending import close_waiting, last_granted
from hpcft.errors import Fault, UserError
from hpcft.launch import nodes, predecessor, provenance
from hpcft.launch.cluster import Cluster, cluster_from
from hpcft.launch.condaenv import Env
from hpcft.launch.plan import Plan
from hpcft.launch.scheduler import Scheduler, scheduler
from hpcft.launch.submission import Submission, make_submission
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir, find_runs, make_root

FREE_NAMES = 10_000
SUBMIT_PATIENCE = 10.0
"""Seconds to wait for another submit of the same run."""


def submit(plan: Plan, root: Path) -> RunDir:
    """A new run with its first jobs queued; or the same submit, killed half-way before, brought to its end.

    Files are made in a hidden folder that is renamed; jobs are submitted held, recorded, and then released
    together. What a kill leaves is a run without queued.json, which the next submit, or `hpcft resume`, settles.
    """
    make_root(root)
    clear_unfinished(root)
    given = given_by(plan)
    for run in find_runs(root):
        settled = run.waits or (run.path / "queued.json").exists()
        if settled or not _same_name(run, plan.recipe.name):
            continue
        with submitting(run) as mine:
            if not mine or (run.path / "queued.json").exists():
                continue  # another submit is at work on it, or has been
            if {**(run.submission or {}), "time": None} == {**given, "time": None}:
                fill(run)
                return run
            discard(run)
    lock, run = make_run(plan, root, given)
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
    wanted = 1 + resources.queued if cluster.jobs_may_submit else cluster.max_submit or resources.jobs
    running = [job for job in run.jobs() if job.started and not job.ended]  # of a submit that was killed at its end
    waiting = _fill_up(run, max(1, wanted - len(running)), running, cluster)
    write_json(run.path / "queued.json", {"time": time.time()})
    run.waiting_file.unlink(missing_ok=True)
    return waiting


def _fill_up(run: RunDir, wanted: int, running: list[JobDir], cluster: Cluster) -> list[JobDir]:
    """All jobs that wait, released: those in the queue already, and new ones until there are as many as wanted.

    Heals what a kill or a hand has done to the queue: a job without record is cancelled, a record whose job is
    gone is closed, and a job that was held and never released is released with the new ones. resources.jobs
    counts from the last resume.
    """
    queue = scheduler(cluster)
    there = queue.queue(run)
    jobs = [job for job in run.jobs() if job.submitted]
    unknown = [number for number in there.held if number not in {job.slurm_id for job in jobs}]
    queue.cancel([], unknown)
    waiting = []
    for job in jobs:
        if job.slurm_id in there.held and not job.started and not job.ended:
            waiting.append(job)
        elif not job.started and not job.ended:
            close_waiting(job, found_by="hpcft")
    held = [job for job in waiting if there.held[job.slurm_id or ""]]
    last = max((job.number for job in jobs), default=0)
    limit = min(last_granted(run), last + max(0, wanted - len(waiting)))
    if cluster.max_submit and limit > last:
        limit = min(limit, last + cluster.max_submit - there.jobs + len(unknown))
        if limit <= last and not waiting:
            what = f"takes {cluster.max_submit} jobs of a user, and {there.jobs} of yours are in the queue."
            raise UserError(Fault(f"cluster {cluster.name}", what, "Try again when one of them has ended."))
    with ThreadPoolExecutor() as pool:  # fsync takes its time, in which the next sbatch is under way
        syncs = []
        for number in range(last + 1, limit + 1):
            waiting.append(_queue_one(run, number, [*running, *waiting], cluster, queue))
            held.append(waiting[-1])
            syncs.append(pool.submit(make_durable, waiting[-1].path / "submitted.json"))
        for sync in syncs:
            sync.result()
    queue.release(held)
    surplus = waiting[wanted:]
    queue.cancel(surplus)
    for job in surplus:
        close_waiting(job, found_by="hpcft")
    return waiting[:wanted]


def top_up(run: RunDir, running: int, needed: int | None = None) -> list[JobDir]:
    """Jobs that wait behind the running one, as many as there should be; called in each job and by the keeper.

    `needed`: jobs that the run will still take, as far as the running one can tell. One always waits, since the
    running one may die; what is more than needed leaves the queue.
    """
    cluster = run_cluster(run)
    over = run.finished or run.halted or run.stop_file.exists()
    if over or not cluster.jobs_may_submit:
        return []
    queued = run.recipe.resources.queued
    wanted = queued if needed is None else min(queued, max(1, needed))
    me = [job for job in run.jobs() if job.number == running and job.submitted][-1:]
    with submitting(run) as mine:  # not beside a resume, whose questions to Slurm are older than our jobs
        return _fill_up(run, wanted, me, cluster) if mine else []


def keep_away(run: RunDir, job: JobDir, blame: nodes.Blame) -> None:
    """Exclude a node from all jobs of this run that come or already wait. Raises UserError if Slurm is away."""
    nodes.exclude(run, job, blame)
    waiting = [other for other in run.jobs() if other.submitted and not other.started and not other.ended]
    left_out = dict(rebuild_submission(run, job.number, ()).options)["exclude"]
    scheduler(run_cluster(run)).exclude(waiting, left_out.split(","))


def _queue_one(run: RunDir, number: int, before: list[JobDir], cluster: Cluster, queue: Scheduler) -> JobDir:
    """Submit one job, held, and record it; the record is not durable yet."""
    # After all that may be alive, not only the last: were that one cancelled by hand, this would start too early.
    after = tuple(dict.fromkeys(job.slurm_id for job in before if job.slurm_id and not job.ended))
    submission = rebuild_submission(run, number, after)
    submission.folder.mkdir(parents=True, exist_ok=True)
    slurm_id = queue.submit(submission)
    job, resources = run.job(number), run.recipe.resources
    record = {
        "slurm_id": slurm_id,
        "cluster": cluster.name,
        "time": time.time(),
        "walltime": submission.walltime,
        "gpus": resources.gpus * resources.nodes,
    }
    write_json(job.path / "submitted.json", {**record, "after": list(after)}, durable=False)
    return job


def cancel_queued(run: RunDir, behind: int = 0) -> list[JobDir]:
    """Take every job behind this number out of the queue; those it took out."""
    waiting = [job for job in run.jobs() if job.number > behind and job.submitted and not job.started]
    waiting = [job for job in waiting if not job.ended]
    scheduler(run_cluster(run)).cancel(waiting)
    for job in waiting:
        close_waiting(job)
    return waiting


def discard(run: RunDir) -> None:
    """Undo a submit that never came to its end: its jobs, all still held, and its directory."""
    queue = scheduler(run_cluster(run))
    jobs = [job for job in run.jobs() if job.submitted]
    if any(job.started for job in jobs):
        write_json(run.path / "queued.json", {"time": time.time()})
        return  # it had been released after all: it is a run
    if run.jobs():  # a job has its folder before it is sent: without one there is none to ask for
        queue.cancel(jobs, list(queue.queue(run).held))
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
    return make_submission(run, number, after, run.recipe, run_cluster(run), run_env(run), tuple(nodes.excluded(run)))


def given_by(plan: Plan) -> dict[str, object]:
    """What a submission of this plan is made of, but for the time."""
    given: dict[str, object] = {"recipe": plan.recipe.model_dump(mode="json")}
    return {**given, "cluster": plan.cluster.model_dump(mode="json"), "env": str(plan.env.prefix)}


def _same_name(run: RunDir, name: str) -> bool:
    base, dash, number = run.name.rpartition("-")
    return run.name == name or (base == name and bool(dash) and number.isdigit())


def _submit_lock(folder: Path) -> Lock:
    # sbatch holds it too: one that outlives a killed hpcft would else queue its job behind the next one's back.
    return Lock(folder / "submit.lock", inherited=True)


def submitting(run: RunDir) -> contextlib.AbstractContextManager[bool]:
    """The run's submit lock, once whoever was killed with sbatch at work has let go of it."""
    return locked(_submit_lock(run.path).path, SUBMIT_PATIENCE, inherited=True)


@contextlib.contextmanager
def alone(run: RunDir) -> Iterator[None]:
    """Run a block with the run's submit lock. Raises UserError if another hpcft keeps it."""
    with submitting(run) as mine:
        if not mine:
            raise UserError(Fault(run.name, "is being submitted by another hpcft.", "Try again in a minute."))
        yield


def clear_unfinished(root: Path) -> None:
    """Remove hidden folders of submits that were killed before they had a name."""
    for path in root.glob(".new-*"):
        with locked(_submit_lock(path).path) as mine:
            if mine:
                shutil.rmtree(path, ignore_errors=True)


def _with_own_files(recipe: Recipe, folder: Path, final: Path) -> Recipe:
    """The recipe with the run's own copies of its prompts, and of a model that another run has left.

    They are made in `folder`, whose name will be `final`.
    """
    if recipe.data.template:
        shutil.copy(recipe.data.template, folder / "template.md")
        data = recipe.data.model_copy(update={"template": str(final / "template.md")})
        recipe = recipe.model_copy(update={"data": data})
    phases = []
    for phase in recipe.phases:
        if phase.data.template:
            name = f"template-{phase.name}.md"
            shutil.copy(phase.data.template, folder / name)
            data = phase.data.model_copy(update={"template": str(final / name)})
            phase = phase.model_copy(update={"data": data})
        phases.append(phase)
    recipe = recipe.model_copy(update={"phases": tuple(phases)})
    if predecessor.is_of_run(Path(recipe.model.path), final.parent):
        if not (folder / predecessor.FOLDER).exists():
            predecessor.keep(Path(recipe.model.path), folder / predecessor.FOLDER)
        model = recipe.model.model_copy(update={"path": str(final / predecessor.FOLDER)})
        recipe = recipe.model_copy(update={"model": model})
    return recipe


def make_run(plan: Plan, root: Path, given: dict[str, object]) -> tuple[Lock, RunDir]:
    """A run directory with all that jobs read, under the first free name, and its submit lock, which is ours."""
    folder = root / f".new-{uuid.uuid4().hex[:12]}"
    folder.mkdir(mode=0o700)
    lock = _submit_lock(folder)
    lock.take()
    run, recipe = RunDir(folder), plan.recipe
    (folder / "jobs").mkdir(mode=0o700)
    shutil.copy(plan.file.path, folder / "recipe.yaml")
    write_json(folder / "submission.json", {**given, "time": time.time()}, durable=False)
    if "matrix" in given:
        RunDir(folder).waiting_file.touch(mode=0o600)
    with ThreadPoolExecutor() as pool:
        sync = pool.submit(make_durable, folder / "submission.json")
        described = pool.submit(provenance.describe, plan.file.path, recipe, plan.file.overrides)
        source = Path(hpcft.__file__).parent
        shutil.copytree(source, run.code / "hpcft", ignore=shutil.ignore_patterns("__pycache__"))
        write_json(folder / "provenance.json", described.result(), durable=False)
        sync.result()
    for number in range(1, FREE_NAMES):
        name = recipe.name if number == 1 else f"{recipe.name}-{number}"
        final = root / name
        if final.exists():
            continue
        recipe = _with_own_files(recipe, folder, final)
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        with contextlib.suppress(OSError):  # taken: rename does not replace a folder that holds something
            folder.rename(final)
            lock.path = final / "submit.lock"
            return lock, RunDir(final)
        recipe = plan.recipe
    raise UserError(Fault(str(root), f'holds {FREE_NAMES} runs named "{plan.recipe.name}".', "Change the name."))
