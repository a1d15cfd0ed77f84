"""What to append to an event file that TensorBoard is reading so that it shows other points than before.

TensorBoard never reads again, and its readers forget differently: the Python ones drop every tag's points
from a START event's step on (the first START of a run is ignored by one of them, hence `START(0)` at the
head); the data server ignores START and drops a tag's points at and beyond each new point of that tag. So a
rewind is both: START, and then, for every tag, all that shall be seen from that step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcft.curves.points import Points, join_points


@dataclass(frozen=True)
class Part:
    """Points of a curve, as one job has them."""

    points: Points
    shift: float = 0.0
    """Seconds that their wall times are shown earlier."""

    def __len__(self) -> int:
        return len(self.points)

    def shown(self) -> Points:
        """With the wall times as they are shown."""
        points = self.points
        return Points(points.steps, points.wall_times - self.shift, points.values) if self.shift else points


_FEW = 16
"""Points that are sooner compared than looked for in memory."""
Curve = tuple[Part, ...]
"""One tag's points, part after part; their steps increase throughout."""
Curves = Mapping[str, Curve]
"""By tag."""


@dataclass(frozen=True)
class Update:
    """What to append to one event file."""

    start: int | None
    """Rewind to this step first; None = only go on."""
    points: Mapping[str, Points]
    """The points to write, by tag."""


def plan_update(shown: Curves, wanted: Curves) -> Update | None:
    """What turns a file that shows `shown` into one that shows `wanted`; None = no appending can, begin anew.

    A point on display can only be replaced together with a point at or before it, so a tag that loses its
    first points, or all, has no way back.
    """
    fresh: dict[str, Points] = {}
    starts: list[int] = []
    for tag in sorted(shown.keys() | wanted.keys()):
        old, new = shown.get(tag, ()), wanted.get(tag, ())
        same = common_length(old, new)
        if same < length(new):
            fresh[tag] = joined(new, same)
        if same == length(old):
            continue
        first_dead = _step_at(old, same)
        if tag in fresh and fresh[tag].steps[0] <= first_dead:
            starts.append(int(fresh[tag].steps[0]))
        elif same > 0:
            starts.append(_step_at(new, same - 1))
        else:
            return None
    start = None
    if starts:
        start = min(starts + [int(points.steps[0]) for points in fresh.values()])
        fresh = {tag: joined(curve, _place_of(curve, start)) for tag, curve in wanted.items()}
    return Update(start, {tag: points for tag, points in fresh.items() if len(points)})


def length(curve: Curve) -> int:
    """How many points it has."""
    return sum(map(len, curve))


def joined(curve: Curve, begin: int = 0) -> Points:
    """Its points from this one on."""
    parts = []
    for part in curve:
        if begin < len(part):
            parts.append(Part(part.points[begin:], part.shift).shown())
        begin = max(0, begin - len(part))
    return parts[0] if len(parts) == 1 else join_points(parts)


def common_length(old: Curve, new: Curve) -> int:
    """How many points from the first on are the same in both; what lies in the same memory is not compared."""
    total = 0
    for place, (one, other) in enumerate(zip(old, new, strict=False)):
        size = min(len(one), len(other))
        alike = one.shift == other.shift and (one.points is other.points or _same_memory(one.points, other.points))
        same = size if alike else _common(one.shown()[:size], other.shown()[:size])
        total += same
        if same < size:
            return total
        if len(one) != len(other):
            rest = joined(old[place:], size), joined(new[place:], size)
            size = min(map(len, rest))
            return total + _common(rest[0][:size], rest[1][:size])
    return total


def _same_memory(one: Points, other: Points) -> bool:
    """Whether one of them is a beginning of the other: what a `Series` has given is never written to again."""
    if len(one) < _FEW or len(other) < _FEW or one.steps.base is not other.steps.base or one.steps.base is None:
        return False
    return one.steps.ctypes.data == other.steps.ctypes.data


def _common(old: Points, new: Points) -> int:
    same = (
        (old.steps == new.steps)
        & (old.wall_times == new.wall_times)
        & (old.values.view(np.int64) == new.values.view(np.int64))  # by their bits: NaN is NaN
    )
    return len(old) if same.all() else int(np.argmin(same))


def _step_at(curve: Curve, place: int) -> int:
    for part in curve:
        if place < len(part):
            return int(part.points.steps[place])
        place -= len(part)
    raise IndexError(place)


def _place_of(curve: Curve, step: int) -> int:
    """How many points lie before the step."""
    return sum(int(np.searchsorted(part.points.steps, step)) for part in curve)
