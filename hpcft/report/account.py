"""Where the time of a run's jobs went: parts that add up to all of it, and what no record names, called so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpcft.curves.runcurves import RunCurves
from hpcft.launch.jobstatus import JobStatus

PARTS = {
    "computing": ("Useful steps", "steps that led to the model, less the waits for rows in them"),
    "rows": ("Waiting for rows", "in those steps: the card had nothing to do"),
    "evaluation": ("Evaluation and tests", "validation losses, and the tests on held-out rows"),
    "saving": ("Saving", "what a save has kept training from going on, and the final model"),
    "start": ("Starting", "from the first line of a job to its first step, and between two phases"),
    "again": ("Trained again", "steps and evaluations after the last checkpoint of a job that was cut off"),
    "idle": ("Nothing to do", "jobs that found the run finished, or another job at work"),
    "unknown": ("Not recorded", "ends of jobs, a step or test that was cut off, and the like"),
}
"""Name and meaning of each part, in the order in which they are shown."""
IDLE = ("idle", "locked", "cancelled")


class Logged(NamedTuple):
    """What a job has logged of its seconds, of what survives in the curve and of what was trained again."""

    data: float = 0.0
    """Waits for rows in steps that survive."""
    compute: float = 0.0
    """The rest of those steps."""
    evaluation: float = 0.0
    evaluation_again: float = 0.0


@dataclass(frozen=True)
class Account:
    """Seconds of each part, times the cards that had to wait for it, or alone for a run without cards."""

    on_cards: bool
    parts: Mapping[str, float]
    """By the names of PARTS, each rounded as it is shown; all of them are there."""
    jobs: Mapping[tuple[int, int], Mapping[str, float]]
    """The same for each job, by number and attempt, in seconds of the job, whatever its cards."""

    @property
    def total(self) -> float:
        """Of all parts: the time that the jobs of the run had."""
        return sum(self.parts.values())


def account(jobs: Sequence[JobStatus], curves: RunCurves) -> Account:
    """Where the time of these jobs went, by their records; the curves say what of it was waiting for rows, and which
    evaluations a later job has made again."""
    logged = {(job.number, job.attempt): _logged(curves, job.label) for job in curves.stitched.jobs}
    found = {
        (job.number, job.attempt): _parts(job, logged.get((job.number, job.attempt), Logged()))
        for job in jobs
        if job.wall_seconds
    }
    on_cards = any(job.gpu_hours for job in jobs)
    sums = dict.fromkeys(PARTS, 0.0)
    for job in jobs:
        cards = job.gpu_hours * 3600 / job.wall_seconds if on_cards and job.wall_seconds else 1.0
        for name, seconds in found.get((job.number, job.attempt), {}).items():
            sums[name] += seconds * cards
    digits = 0 if sum(sums.values()) >= 600 else 1
    return Account(on_cards, {name: round(seconds, digits) for name, seconds in sums.items()}, found)


def _parts(job: JobStatus, logged: Logged) -> dict[str, float]:
    """Seconds of each part of one job, which add up to all that it had."""
    wall = job.wall_seconds or 0.0
    found = dict.fromkeys(PARTS, 0.0)
    if job.ending in IDLE:
        return {**found, "idle": wall}
    spent = job.seconds
    stepping = logged.data + logged.compute
    found["rows"] = job.useful_seconds * (logged.data / stepping if stepping else 0.0)
    found["computing"] = job.useful_seconds - found["rows"]
    looked = logged.evaluation + logged.evaluation_again
    repeated = spent.get("evaluate", 0.0) * (logged.evaluation_again / looked if looked else 0.0)
    found["evaluation"] = spent.get("evaluate", 0.0) - repeated + spent.get("test", 0.0)
    found["again"] = spent.get("train", 0.0) - job.useful_seconds + repeated
    found["saving"] = spent.get("save", 0.0) + spent.get("finish", 0.0)
    found["start"] = sum(seconds for name, seconds in job.start.items() if name != "first step")
    found["start"] += spent.get("next phase", 0.0)
    rest = wall - sum(found.values())
    # A job that never came to train has done nothing but start, as far as it came.
    found["start" if job.resume_step is None else "unknown"] += max(0.0, rest)
    return found


def _logged(curves: RunCurves, label: str) -> Logged:
    def seconds(tag: str, *, kept: bool = True) -> float:
        parts = curves.stitched.kept(tag) if kept else curves.stitched.superseded(tag)
        return float(sum(part.points.values.sum() for part in parts if part.job.label == label))

    return Logged(
        seconds("seconds/data"),
        seconds("seconds/compute"),
        seconds("seconds/evaluation"),
        seconds("seconds/evaluation", kept=False),
    )
