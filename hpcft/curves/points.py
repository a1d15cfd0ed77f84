"""The points of a curve, as they are and as they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Points:
    """A curve's points, sorted by step: three arrays of one length."""

    steps: NDArray[np.int64]
    """Optimizer steps done, strictly increasing."""
    wall_times: NDArray[np.float64]
    """Seconds since 1970, by the clock of the node that logged the point."""
    values: NDArray[np.float64]
    """32-bit floats in truth; NaN and infinity stay what they are."""

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, which: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Points:
        return Points(self.steps[which], self.wall_times[which], self.values[which])


def sort_points(steps: NDArray[np.int64], wall_times: NDArray[np.float64], values: NDArray[np.float64]) -> Points:
    """`Points` of arrays in the order they were logged; of equal steps the last stays."""
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.zeros(0, dtype=np.bool_)
    order = order[last]
    return Points(steps[last], wall_times[order], values[order])


def make_points(rows: list[tuple[int, float, float]]) -> Points:
    """`Points` of (step, wall time, value) rows in the order they were logged; of equal steps the last stays.

    >>> make_points([(2, 0.0, 7.0), (1, 1.0, 8.0), (2, 2.0, 9.0)]).values
    array([8., 9.])
    """
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return sort_points(
        np.array(columns[0], dtype=np.int64), *(np.array(column, dtype=np.float64) for column in columns[1:])
    )


def join_points(parts: list[Points]) -> Points:
    """The parts one after the other; the caller sees to it that their steps increase."""
    if not parts:
        return make_points([])
    return Points(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.wall_times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


class Series:
    """Points that grow. What was given stays as it is: new points lie behind it, or all of them are laid out anew."""

    def __init__(self) -> None:
        self._points = make_points([])
        self._room = self._points

    @property
    def points(self) -> Points:
        """All so far."""
        return self._points

    def extend(self, steps: NDArray[np.int64], wall_times: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Take in points in the order they were logged; of equal steps the last stays."""
        new, old = Points(steps, wall_times, values), self._points
        if not len(new):
            return
        if (steps[1:] <= steps[:-1]).any() or (len(old) and steps[0] <= old.steps[-1]):
            new = join_points([old, new])
            self._room = self._points = sort_points(new.steps, new.wall_times, new.values)
            return
        size = len(old) + len(new)
        if size > len(self._room):
            # Twice as much as there is, so that each point is copied once or twice in all.
            self._room = _with_room(old, 2 * size if len(old) else size)
        for room, column in zip(_columns(self._room), _columns(new), strict=True):
            room[len(old) : size] = column
        self._points = self._room[:size]


def _columns(points: Points) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    return points.steps, points.wall_times, points.values


def _with_room(points: Points, size: int) -> Points:
    """Arrays of this size that begin with the points."""
    room = Points(np.empty(size, dtype=np.int64), np.empty(size), np.empty(size))
    for column, wide in zip(_columns(points), _columns(room), strict=True):
        wide[: len(column)] = column
    return room
