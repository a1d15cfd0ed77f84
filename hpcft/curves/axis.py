"""What a picture has from left to right: steps, hours in which a job ran, or the time of day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.points import Points
from hpcft.curves.runcurves import TRAIN, RunCurves
from hpcft.curves.stitch import JobCurve

Axis = Literal["step", "hours", "time"]
AXES: tuple[Axis, ...] = get_args(Axis)
LABELS: dict[Axis, str] = {"step": "step", "hours": "active hours, without queue waits", "time": "time"}
Array = NDArray[np.float64]


def places(curves: RunCurves, job: JobCurve, points: Points, axis: Axis) -> Array:
    """Where on the axis a job's points lie: steps, hours since the run began, or seconds since 1970."""
    if axis == "step":
        return points.steps.astype(np.float64)
    if axis == "time":
        return points.wall_times
    place = curves.places[job.label]
    # A clock may have been set in the middle of a job, and it still lies between the jobs before and after it.
    return np.asarray(place.hours_before + np.clip((points.wall_times - place.begins) / 3600, 0, place.hours))


def start_of(curves: RunCurves, job: JobCurve, axis: Axis) -> float:
    """Where a job that has logged begins."""
    place = curves.places[job.label]
    return {"step": float(job.resume_step or 0), "hours": place.hours_before, "time": place.begins}[axis]


def place_of_step(curves: RunCurves, step: int, axis: Axis, tags: Sequence[str] = (TRAIN,)) -> float | None:
    """Where the run went beyond this step, by its first surviving point behind it; None where it has none."""
    if axis == "step":
        return float(step)
    found = []
    for segment in (segment for tag in tags for segment in curves.stitched.kept(tag)):
        if (behind := segment.points[segment.points.steps > step]) and len(behind):
            found.append(float(places(curves, segment.job, behind[:1], axis)[0]))
    return min(found, default=None)


def thin(points: Points, at: Array, first: float, last: float, pixels: int) -> NDArray[np.int64]:
    """Which points show at `pixels` columns from `first` to `last`: of each column its first, last, lowest, highest,
    and its gaps. `at` is where each point lies.

    All of them where they are few; a value that is not finite breaks the line, so it stays.
    """
    column = ((at - first) * pixels / max(1e-9, last - first)).astype(np.int64)
    if len(points) <= 4 * (column[-1] - column[0] + 1):
        return np.arange(len(points))
    finite = np.isfinite(points.values)
    keep = np.zeros(len(points), dtype=np.bool_)
    for chosen in (np.flatnonzero(finite), np.flatnonzero(~finite)):
        for key in (points.values, points.steps):
            order = chosen[np.lexsort((key[chosen], column[chosen]))]
            new = np.flatnonzero(np.diff(column[order], prepend=-1, append=pixels + 1))
            keep[order[new[:-1]]] = True
            keep[order[new[1:] - 1]] = True
    keep[[0, -1]] = True
    return np.flatnonzero(keep)
