"""The pace: seconds that a run still takes, and the jobs that it needs, from what its jobs so far have taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcft.interval import save_interval, time_between_failures
from hpcft.recipe import Recipe

if TYPE_CHECKING:
    from hpcft.launch.jobstatus import JobStatus

ENOUGH = 10
"""Steps of the newest job from which on its own pace counts alone: an earlier node may have been a slower one."""
DOUBT = 0.03
"""How far off the work that is left may be, as a share of it."""
FORWARD = 1 / 3
"""What evaluating a row takes of the time to learn it: the forward pass alone."""


def jobs_needed(seconds_left: float, walltime: float, overhead: float) -> int | None:
    """Jobs that so many seconds of work still need, each with its overhead; None if a job has no time for work.

    >>> jobs_needed(10_000, walltime=3600, overhead=100)
    3
    """
    if seconds_left <= 0:
        return 0
    return math.ceil(seconds_left / (walltime - overhead)) if walltime > overhead else None


def evaluations(recipe: Recipe, first: int, last: int, ends: Sequence[int]) -> int:
    """Validation losses on the way from this step to that one: at step 0, every so many steps, and where phases end."""
    every = recipe.evaluate.every
    if not recipe.data.has("validation"):
        return 0
    count = last // every - first // every + (first == 0) if every else 0
    return count + sum(first < end <= last and not (every and end % every == 0) for end in ends)


def tests(recipe: Recipe, first: int, last: int, ends: Sequence[int]) -> int:
    """How often the test is put on the way from this step to that one: before the first, and where phases end."""
    return ((first == 0) + sum(first < end <= last for end in ends)) if recipe.is_tested else 0


@dataclass(frozen=True)
class Pace:
    """Mean seconds of what a run is made of."""

    step: float
    weight: float
    """Of one of the steps that were measured, as Place.weight gives it."""
    evaluation: float
    test: float
    start: float
    """Of a job that resumes, until its first step, and what that takes longer than the others."""


@dataclass(frozen=True)
class Outlook:
    """What is still to come."""

    seconds: float
    """Of job time: queue waits are not in it."""
    jobs: int
    """That have not begun."""


@dataclass(frozen=True)
class Place:
    """Where a run stands."""

    step: int
    total: int
    walltime: float
    """Of one job."""
    margin: float
    """Seconds before its end when a job has saved."""
    save_every: int | None
    """Steps between two saves; None where saves find their own."""
    save_stall: float = 0.0
    """Seconds for which a save beside the steps keeps them waiting."""
    save_seconds: float = 0.0
    """Seconds until it is on disk, for which the end of a job waits."""
    phase: str | None = None
    """What the running job does."""
    phase_seconds: float = 0.0
    """Since when it does."""
    validation_steps: float = 0.0
    """The validation rows, in steps with as many tokens."""
    stopping: bool = False
    """Whether the running job is on its way out."""
    phases: Sequence[Mapping[str, Any]] = ()
    """Of a run with phases, as rundir.RunDir.phases gives them."""

    @property
    def ends(self) -> list[int]:
        """Steps done at the end of each phase."""
        return [int(phase["ends"]) for phase in self.phases] or [self.total]

    @property
    def at_border(self) -> bool:
        """Whether the last step of a phase is done, and what belongs to its end is not."""
        return any(self.step == phase["ends"] and not phase["over"] for phase in self.phases)

    def weight(self, first: int, last: int) -> float:
        """What the steps between these two take, by their tokens: those of another phase may have more of them."""
        if not self.phases:
            return float(last - first)
        steps = [max(0, min(last, one["ends"]) - max(first, one["begins"])) for one in self.phases]
        return float(sum(some * one["step_tokens"] for some, one in zip(steps, self.phases, strict=True)))


def measure(jobs: Sequence[JobStatus], place: Place) -> Pace | None:
    """The pace of these jobs; None until one has trained."""
    trained = [job for job in jobs if job.steps_done and job.seconds.get("train")]
    if not trained:
        return None
    newest = trained[-1:] if trained[-1].steps_done > ENOUGH else trained
    step = _step(newest)
    ways = [(job.resume_step or 0, (job.resume_step or 0) + job.steps_done) for job in newest]
    return Pace(
        step=step,
        weight=sum(place.weight(*way) for way in ways) / sum(job.steps_done for job in newest),
        evaluation=_mean(jobs, "evaluate", place.validation_steps * FORWARD * step),
        test=_mean(jobs, "test", 0.0),
        start=_start(trained, step),
    )


def _step(jobs: Sequence[JobStatus]) -> float:
    """Mean seconds of a step, without the first of each job."""
    firsts = [job.start.get("first step") if job.steps_done > 1 else None for job in jobs]
    steps = sum(job.steps_done - (first is not None) for job, first in zip(jobs, firsts, strict=True))
    spent = sum(_stepping(job) for job in jobs) - sum(first or 0.0 for first in firsts)
    return max(0.0, spent) / steps


def _stepping(job: JobStatus) -> float:
    """Seconds of steps; of a run whose own hpcft did not count them, evaluations and saves are in it."""
    others = 0.0 if job.counts else job.seconds.get("evaluate", 0.0) + job.seconds.get("save", 0.0)
    return job.seconds["train"] + others


def _mean(jobs: Sequence[JobStatus], phase: str, unknown: float) -> float:
    counted = [job for job in jobs if job.counts.get(phase)]
    times = sum(job.counts[phase] for job in counted)
    return sum(job.seconds.get(phase, 0.0) for job in counted) / times if times else unknown


def _start(jobs: Sequence[JobStatus], step: float) -> float:
    """Seconds that the next job will take to its first step, as the newest one has; tokenising is done once."""
    newest = next((job for job in reversed(jobs) if job.start), None)
    if newest is None:  # the run's own hpcft did not say: what a whole job took beside its work
        lost = [(job.wall_seconds or 0.0) - _worked(job) for job in jobs if job.ending]
        return max(0.0, lost[-1]) if lost else 0.0
    phases = dict(newest.start)
    first = max(0.0, phases.pop("first step", step) - step)
    if newest.resume_step == 0:
        phases.pop("data", None)
    return sum(phases.values()) + first


def _worked(job: JobStatus) -> float:
    return sum(job.seconds.get(phase, 0.0) for phase in ("train", "evaluate", "test", "save"))


def outlook(jobs: Sequence[JobStatus], recipe: Recipe, place: Place) -> Outlook | None:
    """What is still to come, at the pace so far: steps, evaluations, saves, and a start and a save for each more job.

    None until a job has trained, and where a job has no time for a step.
    """
    pace = measure(jobs, place)
    if pace is None:
        return None
    ran = next((job.wall_seconds for job in reversed(jobs) if job.ending is None and job.wall_seconds), None)
    starting = 0.0
    if ran is not None and place.phase == "start":
        starting = max(0.0, pace.start - ran)
    work = _work(recipe, place, pace)
    cut = place.save_seconds + pace.step / 2  # the step that a walltime interrupts is done again
    room = 0.0
    if ran is not None and not place.stopping:
        room = max(0.0, place.walltime - ran - starting - place.margin - cut)
    overhead = place.margin + pace.start + cut
    more = jobs_needed(work - room, place.walltime, overhead)
    if more is None:
        return None
    further = _expected((work - room) / (place.walltime - overhead), DOUBT * work / (place.walltime - overhead))
    saved = place.stopping and place.phase == "save"  # then it is in the work
    cuts = further if ran is not None and not saved else max(0.0, further - 1)
    return Outlook(starting + work + further * pace.start + cuts * cut, more)


def _expected(jobs: float, doubt: float) -> float:
    """How many jobs so much work will take on average, if it may as well be a little more or less.

    Else what is left would jump by a whole start, to and fro, where it hangs by a step whether one more is needed.

    >>> [_expected(jobs, 0.1) for jobs in (1.5, 1.95, 2.0, 2.2)]
    [2.0, 2.25, 2.5, 3.0]
    """
    whole, doubt = max(0, round(jobs)), max(1e-9, min(0.5, doubt))
    return whole + min(1.0, max(0.0, (jobs + doubt - whole) / (2 * doubt)))


def _work(recipe: Recipe, place: Place, pace: Pace) -> float:
    """Seconds of what is to be done whatever cuts the run, and of what is being done."""
    step, total, last = place.step, place.total, place.save_seconds
    doing = {"evaluate": pace.evaluation, "test": pace.test, "save": last, "finish": last, "next phase": pace.start}
    now = max(0.0, doing.get(place.phase or "", 0.0) - place.phase_seconds)
    if step == total or place.at_border:  # what follows the last step of all, or of a phase
        after = ("evaluate", "test", "save", "finish" if step == total else "next phase")
        left = after[after.index(place.phase) + 1 :] if place.phase in after else after
        now += sum(doing[phase] for phase in left if phase != "test" or recipe.is_tested)
    if step == total:
        return now
    stall = place.save_stall
    every = place.save_every or save_interval(stall, last, pace.step, place.walltime, time_between_failures(()))
    return (
        now
        + place.weight(step, total) / pace.weight * pace.step
        + evaluations(recipe, step, total, place.ends) * pace.evaluation
        + tests(recipe, step, total, place.ends) * pace.test
        + ((total - 1) // every - step // every) * stall
        + sum(step < end < total for end in place.ends) * (last + pace.start)  # from one phase to the next
        + 2 * last  # the last checkpoint, and the model itself
    )
