"""All facts of a run, each file read once: a status of 200 runs with 2,000 jobs has a second for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from hpcft.ending import has_lapsed
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir

BLOCK = 1 << 16
NAMES = ("submitted", "started", "resumed", "ended", "heartbeat")


@dataclass(frozen=True)
class JobFacts:
    """What one job, or a later attempt of it, has left; None for what it has not."""

    job: JobDir
    submitted: dict[str, Any] | None = None
    """Of the job, whatever the attempt."""
    started: dict[str, Any] | None = None
    resumed: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
    heartbeat: dict[str, Any] | None = None
    """Left out for a job that has ended: its ending says more."""

    @property
    def slurm_id(self) -> str | None:
        """The scheduler's id, None while the submission is half-done."""
        return self.submitted["slurm_id"] if self.submitted else None

    @property
    def last_words(self) -> dict[str, Any]:
        """Its ending, else its last heartbeat."""
        return self.ended or self.heartbeat or {}


@dataclass(frozen=True)
class RunFacts:
    """One run, as its files were a moment ago."""

    run: RunDir
    recipe: Recipe
    cluster: str
    kind: str
    """slurm or local."""
    stop_margin: float
    """Seconds before the end of a walltime when a job has saved."""
    jobs: list[JobFacts]
    """In order, those whose submission was recorded."""
    finished: dict[str, Any] | None
    halted: dict[str, Any] | None
    queued: bool
    """Whether the submission came to its end."""
    waits: bool
    """Whether it has no job yet, since another run of its matrix has to end first."""
    stop: bytes | None
    """What stands in STOP; None if the user wants no pause."""
    submitted_before: int
    """The last job that had a number when the user called `hpcft resume`."""
    saved: tuple[int, float] | None
    """Step and time of the newest checkpoint."""
    phases: list[dict[str, Any]]
    """As rundir.RunDir.phases gives them."""
    trackers: dict[str, dict[str, Any]]
    """By name: {id, sent, given, fault, ...} of other trackers that get the curve."""

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None until the first job has counted the rows of a run given in epochs."""
        if steps := self.recipe.steps:
            return steps
        return next((int(job.resumed["total_steps"]) for job in reversed(self.jobs) if job.resumed), None)

    @property
    def running(self) -> JobFacts | None:
        """The newest job that has begun and not ended, as far as it says itself."""
        return next((job for job in reversed(self.jobs) if job.started and not job.ended), None)

    def latest(self, key: str) -> float | None:
        """The last value of this kind that any job has said."""
        values = (job.last_words.get(key) for job in reversed(self.jobs))
        return next((float(value) for value in values if value is not None), None)

    @property
    def jobs_granted(self) -> int:
        """Jobs that have not begun and still may, by resources.jobs, which counts from the last resume."""
        later = [job for job in self.jobs if job.job.number > self.submitted_before]
        gone = [job for job in later if job.started or job.ended]
        used = {job.job.number for job in gone if not has_lapsed(job.started, job.ended)}
        return max(0, self.recipe.resources.jobs - len(used))


def read_facts(run: RunDir) -> RunFacts:
    """The facts of a run. Raises UserError for a directory that is no whole run."""
    try:
        there = {entry.name for entry in os.scandir(run.path)}
    except FileNotFoundError:
        raise UserError(Fault(run.name, "is not there any more.", "Another hpcft has removed it.")) from None

    def fact(name: str) -> dict[str, Any] | None:
        return _read(f"{run.path}/{name}") if name in there else None

    submission = fact("submission.json")
    if submission is None:
        raise UserError(Fault(str(run.path), "holds no submission.json; it is no whole run."))
    recipe = run.recipe
    return RunFacts(
        run,
        recipe,
        str(submission["cluster"]["name"]),
        str(submission["cluster"]["kind"]),
        float(submission["cluster"].get("stop_margin", 0.0)),
        _read_jobs(run),
        fact("finished.json"),
        fact("halted.json"),
        "queued.json" in there,
        "waiting" in there and "queued.json" not in there,
        _stop(run) if "STOP" in there else None,
        int((fact("resume.json") or {"submitted": 0})["submitted"]),
        _newest_saved(run) if "checkpoints" in there else None,
        list((fact("phases.json") or {"phases": []})["phases"]),
        _read_trackers(run, recipe) if "trackers" in there else {},
    )


def _read_trackers(run: RunDir, recipe: Recipe) -> dict[str, dict[str, Any]]:
    # Of those that its recipe names: some keep stores of their own in that folder.
    found = {name: _read(f"{run.trackers}/{name}.json") for name in dict.fromkeys(recipe.track.to)}
    return {name: facts for name, facts in found.items() if facts}


def _read_jobs(run: RunDir) -> list[JobFacts]:
    found = []
    submitted: dict[str, Any] | None = None
    for job in run.jobs():
        there = {entry.name for entry in os.scandir(job.path)}
        names = [name for name in NAMES if f"{name}.json" in there]
        if "ended" in names and "heartbeat" in names:
            names.remove("heartbeat")
        facts = {name: _read(f"{job.path}/{name}.json") for name in names}
        if job.attempt == 1:
            submitted = facts.get("submitted")
        facts["submitted"] = submitted
        if submitted:
            found.append(JobFacts(job, **facts))
    return found


def _read(path: str) -> dict[str, Any] | None:
    """The fact in this file; None where it has gone since the folder was listed."""
    # Straight from the kernel: of ten thousand small files Python's own reader takes twice as long.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = os.read(handle, BLOCK)
        while len(data) % BLOCK == 0 and (more := os.read(handle, BLOCK)):
            data += more
    finally:
        os.close(handle)
    value: dict[str, Any] = json.loads(data)
    return value


def _stop(run: RunDir) -> bytes | None:
    try:
        return run.stop_file.read_bytes()
    except FileNotFoundError:
        return None


def _newest_saved(run: RunDir) -> tuple[int, float] | None:
    for step in reversed(run.saved_steps()):
        try:
            return step, (run.checkpoints / f"step-{step:08d}" / "manifest.json").stat().st_mtime
        except FileNotFoundError:
            continue  # pruned meanwhile
    return None
