"""A run as pictures show it: its stitched curves, and what its records say of jobs, phases and the best model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from hpcft.curves.jobs import job_curves
from hpcft.curves.points import Points
from hpcft.curves.stitch import JobCurve, Segment, Stitched, stitch
from hpcft.disk import read_json
from hpcft.rundir import JobDir, RunDir

TRAIN = "train/loss"
VALIDATION = "validation/loss"
RUNS_ON = "runs"
"""In place of the ending of a job that has none yet."""


class Phase(NamedTuple):
    """A stretch of the run that is marked."""

    name: str
    begins: int
    """Steps done before its first."""
    ends: int
    apart: bool
    """Whether its losses are of another kind than those before: no line leads from them to these."""


class Life(NamedTuple):
    """When a job ran, in seconds since 1970 by the clock of its node, and how that ended."""

    begins: float
    ends: float | None
    """Its ending, else its last sign of life."""
    ending: str


class Best(NamedTuple):
    """The model of the lowest validation loss that is on disk."""

    step: int
    loss: float
    where: str
    """`best/`, `the final model`, or `checkpoint`."""


class Place(NamedTuple):
    """Where a job lies on the axes of time."""

    begins: float
    """Seconds since 1970."""
    hours_before: float
    """That the jobs before it ran; queue waits are not in it."""
    hours: float
    """That it ran itself."""


@dataclass(frozen=True)
class RunCurves:
    """One run."""

    name: str
    stitched: Stitched
    phases: tuple[Phase, ...] = ()
    lives: Mapping[str, Life] = field(default_factory=dict)
    """By job label; without a record of it, a job lasts from its first point to its last."""
    best: Best | None = None

    @cached_property
    def places(self) -> dict[str, Place]:
        """By label, of every job that began or has a point."""
        found: dict[str, Place] = {}
        before = 0.0
        for job in self.stitched.jobs:
            parts = [part for _, part in self._parts.get(job.label, ())]
            times = [time for part in parts for time in part.points.wall_times[[0, -1]].tolist()]
            life = self.lives.get(job.label)
            if not times and not life:
                continue
            begins = life.begins if life else min(times)
            ends = max([*times, *([life.ends] if life and life.ends else [])], default=begins)
            hours = max(0.0, ends - begins) / 3600
            found[job.label] = Place(begins, before, hours)
            before += hours
        return found

    @cached_property
    def _parts(self) -> dict[str, list[tuple[bool, Segment]]]:
        """All that each job has logged, by its label, and whether it survives."""
        found: dict[str, list[tuple[bool, Segment]]] = {}
        for tag in self.stitched.tags:
            for kept, parts in ((True, self.stitched.kept(tag)), (False, self.stitched.superseded(tag))):
                for part in parts:
                    found.setdefault(part.job.label, []).append((kept, part))
        return found

    def steps_kept(self, job: JobCurve) -> tuple[int, int] | None:
        """First and last step of a job that survive, by what it has logged; None if none does."""
        parts = self._parts.get(job.label, ())
        last = max((int(part.points.steps[-1]) for kept, part in parts if kept), default=0)
        first = (job.resume_step or 0) + 1
        return (first, last) if last >= first else None

    def words(self, job: JobCurve) -> str:
        """`2. 4712 (201-400, killed)`: a job's number, Slurm id, steps that survive, and ending."""
        number = f"{job.number}" if job.attempt == 1 else f"{job.number}.{job.attempt}"
        steps = self.steps_kept(job)
        facts = [f"{steps[0]}-{steps[1]}" if steps else "no step kept"]
        if life := self.lives.get(job.label):
            facts.append(life.ending)
        return f"{number}. {job.label.partition('-')[2] or job.label} ({', '.join(facts)})"


def read_run(run: RunDir) -> RunCurves:
    """The curves of a run and what its records say; never raises for what is not there yet."""
    stitched = stitch(job_curves(run))
    phases = tuple(Phase(one["name"], one["begins"], one["ends"], one["other_measure"]) for one in run.phases)
    lives = {job.label: life for job in run.jobs() if (life := _life(job))}
    return RunCurves(run.name, stitched, phases, lives, _best(run, stitched.curve(VALIDATION), phases))


def _life(job: JobDir) -> Life | None:
    """None for a job that never began."""
    started, ended = job.started, job.ended or {}
    if started is None:
        return None
    ends = ended.get("time") or (job.heartbeat or {}).get("time")
    return Life(float(started["time"]), float(ends) if ends else None, ended.get("ending", RUNS_ON))


def _best(run: RunDir, validation: Points, phases: tuple[Phase, ...]) -> Best | None:
    """What best/ holds, else the checkpoint or final model with the lowest validation loss of those that are there."""
    if kept := read_json(run.best_model / "best.json"):
        return Best(int(kept["step"]), float(kept["validation_loss"]), "best/")
    where = dict.fromkeys(run.saved_steps(), "checkpoint")
    if (finished := run.finished) and run.final_model.is_dir():
        where[int(finished["step"])] = "the final model"
    # A loss of another kind is no better for being lower.
    since = max((phase.begins for phase in phases if phase.apart and phase.begins < max(where, default=0)), default=-1)
    pairs = zip(validation.steps.tolist(), validation.values.tolist(), strict=True)
    losses = [(loss, step) for step, loss in pairs if step in where and step > since and loss == loss]
    if not losses:
        return None
    loss, step = min(losses)
    return Best(step, loss, where[step])
