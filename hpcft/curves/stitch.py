"""One curve from many jobs: which job's point survives at each step, and which were superseded.

A job that was killed at step 1234 after its checkpoint at 1200 has logged 34 steps that the next job trains
again. Those are superseded: the next job's points are the ones that led to the model.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.points import Points, join_points
from hpcft.curves.raw import Place, RawEvent
from hpcft.curves.reader import Damage, JobPoints, JobReader

SECONDS_TO_SETTLE = 60.0
"""So long after it is seen that a job has ended, its files are still looked at: its node may write late."""


@dataclass(frozen=True)
class JobCurve:
    """Where one attempt of one job logs, and where in the run it went on."""

    label: str
    """Its name in TensorBoard, also a directory name: `job003-4711`."""
    number: int
    """Its place in the chain, from 1."""
    attempt: int
    """From 1; a requeue of the same Slurm id is the next."""
    directory: Path
    """Holds its event files; need not exist yet."""
    resume_step: int | None
    """Steps done in the checkpoint it went on from; 0 = began afresh; None = has never reached training."""
    over: bool = False
    """Whether it has ended: then its files are soon not looked at any more."""


@dataclass(frozen=True)
class Segment:
    """The points of one tag that one job contributes."""

    job: JobCurve
    points: Points


@dataclass(frozen=True)
class RawSegment:
    """The events of one tag that one job contributes and that are no scalars."""

    job: JobCurve
    points: Points
    """Their values are fingerprints."""
    events: Mapping[tuple[int, float], RawEvent]
    """By step and fingerprint."""


@dataclass(frozen=True)
class Stitched:
    """The curves of a run: per tag what each job's points became."""

    jobs: tuple[JobCurve, ...]
    """All attempts, oldest first, as they were given."""
    damage: Mapping[str, Damage]
    """By job label: what could not be read."""
    _kept: Mapping[str, tuple[Segment, ...]] = field(repr=False)
    _superseded: Mapping[str, tuple[Segment, ...]] = field(repr=False)
    raw: Mapping[tuple[Place, str], tuple[RawSegment, ...]] = field(repr=False, default_factory=dict)
    """What survives of all that is no scalar, by where it belongs and by tag."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag that has a point, sorted."""
        return tuple(sorted(self._kept.keys() | self._superseded.keys()))

    def kept(self, tag: str) -> tuple[Segment, ...]:
        """The surviving points of `tag`: one segment per job that has any, steps increasing throughout."""
        return self._kept.get(tag, ())

    def superseded(self, tag: str) -> tuple[Segment, ...]:
        """The points of `tag` that a later job trained again: one segment per job that has any."""
        return self._superseded.get(tag, ())

    def curve(self, tag: str) -> Points:
        """The whole surviving curve of `tag`, over all jobs."""
        return join_points([segment.points for segment in self.kept(tag)])


def stitch(jobs: Sequence[JobCurve]) -> Stitched:
    """Reads what `jobs` (oldest first) have logged and gives the stitched curves; never raises OSError."""
    return Stitcher().stitch(jobs)


class Stitcher:
    """Stitches a run again and again; reads only what is new of its jobs' files."""

    def __init__(self) -> None:
        self._readers: dict[Path, JobReader] = {}
        self._over_since: dict[Path, float] = {}
        self._closed: dict[Path, JobPoints] = {}
        self._slices: dict[tuple[Path, str], tuple[Points, slice, Points]] = {}

    def stitch(self, jobs: Sequence[JobCurve]) -> Stitched:
        """As the function `stitch`."""
        found = [self._points_of(job) for job in jobs]
        resume_steps = [job.resume_step for job in jobs]
        kept: dict[str, list[Segment]] = {}
        superseded: dict[str, list[Segment]] = {}
        cuts = cut_steps(resume_steps, [_last_step(of_job) for of_job in found])
        for tag in sorted({tag for of_job in found for tag in of_job.curves}):
            reached = -1
            for job, cut, of_job in zip(jobs, cuts, found, strict=True):
                points = of_job.curves.get(tag)
                if points is None:
                    continue
                keep = kept_slice(points.steps, job.resume_step, cut, reached)
                if keep.start < keep.stop:
                    kept.setdefault(tag, []).append(Segment(job, self._slice(job, tag, points, keep)))
                    reached = int(points.steps[keep.stop - 1])
                dead = [part for part in (points[: keep.start], points[keep.stop :]) if len(part)]
                if dead:
                    superseded.setdefault(tag, []).append(
                        Segment(job, dead[0] if len(dead) == 1 else join_points(dead))
                    )
        return Stitched(
            tuple(jobs),
            {job.label: of_job.damage for job, of_job in zip(jobs, found, strict=True)},
            {tag: tuple(segments) for tag, segments in kept.items()},
            {tag: tuple(segments) for tag, segments in superseded.items()},
            _keep_raw(jobs, found, cuts),
        )

    def _slice(self, job: JobCurve, tag: str, points: Points, keep: slice) -> Points:
        """`points[keep]`; where nothing is new the very same object as before, which need not be compared."""
        known = self._slices.get((job.directory, tag))
        if known is None or known[0] is not points or known[1] != keep:
            known = self._slices[job.directory, tag] = (points, keep, points[keep])
        return known[2]

    def _points_of(self, job: JobCurve) -> JobPoints:
        if job.resume_step is None:
            return JobPoints({})
        if not job.over:
            self._over_since.pop(job.directory, None)
            self._closed.pop(job.directory, None)
        elif job.directory in self._closed:
            return self._closed[job.directory]
        points = self._readers.setdefault(job.directory, JobReader(job.directory)).poll()
        if job.over:
            since = self._over_since.setdefault(job.directory, time.monotonic())
            if time.monotonic() - since > SECONDS_TO_SETTLE and not points.damage.unreadable:
                self._closed[job.directory] = points
        return points


def _keep_raw(
    jobs: Sequence[JobCurve], found: Sequence[JobPoints], cuts: Sequence[int | None]
) -> dict[tuple[Place, str], tuple[RawSegment, ...]]:
    kept: dict[tuple[Place, str], list[RawSegment]] = {}
    reached: dict[tuple[Place, str], int] = {}
    once: JobCurve | None = None
    for job, cut, of_job in zip(jobs, cuts, found, strict=True):
        for tag, curve in of_job.raw.items():
            points = curve.points
            if curve.place is Place.STITCHED:
                points = points[kept_slice(points.steps, job.resume_step, cut, reached.get((curve.place, tag), -1))]
            elif curve.place is Place.JOB and cut is not None:
                points = points[points.steps <= cut]
            elif curve.place is Place.ONCE:
                once = once or job
                points = points if once is job else points[:0]
            if len(points):
                reached[curve.place, tag] = int(points.steps[-1])
                kept.setdefault((curve.place, tag), []).append(RawSegment(job, points, curve.events))
    return {key: tuple(segments) for key, segments in kept.items()}


def cut_steps(resume_steps: Sequence[int | None], last_steps: Sequence[int | None]) -> list[int | None]:
    """Per job, oldest first: the last step it may keep, None = no limit.

    The limit is the smallest resume step of the later jobs that took over, i.e. logged a point beyond their
    own resume step; a job that died at its start takes nothing away. `last_steps` are the last steps
    logged, None = none. Job 1 logged up to 1234, job 2 resumed at 1200 and logged up to 2000:

    >>> cut_steps([0, 1200], [1234, 2000])
    [1200, None]
    """
    cuts: list[int | None] = []
    cut: int | None = None
    for resume_step, last_step in zip(reversed(resume_steps), reversed(last_steps), strict=True):
        cuts.append(cut)
        if resume_step is not None and last_step is not None and last_step > resume_step:
            cut = resume_step if cut is None else min(cut, resume_step)
    return cuts[::-1]


def kept_slice(steps: NDArray[np.int64], resume_step: int | None, cut: int | None, reached: int) -> slice:
    """Which points survive of those that a job logged for one tag at these steps, which increase.

    Those beyond the resume step, up to `cut` (see `cut_steps`). At the resume step itself only where no
    earlier job has kept this tag there or further on (`reached`: the last step kept before, -1 = none):
    that is where the first evaluation of a run lies, and an evaluation that the earlier job was stopped
    before.
    """
    if resume_step is None:
        return slice(0, 0)
    first = resume_step if reached < resume_step else resume_step + 1
    begin = int(np.searchsorted(steps, first))
    return slice(begin, len(steps) if cut is None else max(begin, int(np.searchsorted(steps, cut, side="right"))))


def _last_step(of_job: JobPoints) -> int | None:
    raw = (curve.points for curve in of_job.raw.values() if curve.place is Place.STITCHED)
    return max((int(points.steps[-1]) for points in (*of_job.curves.values(), *raw) if len(points)), default=None)
