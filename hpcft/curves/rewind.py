"""What to append to an event file that TensorBoard is reading so that it shows other points than before.

TensorBoard never reads again, and its readers forget differently: the Python ones drop every tag's points
from a START event's step on (the first START of a file is ignored by one of them, hence `START(0)` at the
head); the data server ignores START and drops a tag's points at and beyond each new point of that tag. So a
rewind is both: START, and then, for every tag, all that shall be seen from that step on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcft.curves.points import Points, make_points

Curves = Mapping[str, Points]
"""Points by tag."""


@dataclass(frozen=True)
class Update:
    """What to append to one event file."""

    start: int | None
    """Rewind to this step first; None = only go on."""
    points: Curves
    """The points to write, by tag."""


def plan_update(shown: Curves, wanted: Curves) -> Update | None:
    """What turns a file that shows `shown` into one that shows `wanted`; None = no appending can, begin anew.

    A point on display can only be replaced together with a point at or before it, so a tag that loses its
    first points, or all, has no way back.
    """
    fresh: dict[str, Points] = {}
    starts: list[int] = []
    for tag in sorted(shown.keys() | wanted.keys()):
        old, new = shown.get(tag, make_points([])), wanted.get(tag, make_points([]))
        same = _common_length(old, new)
        fresh[tag] = new[same:]
        if same == len(old):
            continue
        first_dead = int(old.steps[same])
        if same < len(new) and new.steps[same] <= first_dead:
            starts.append(int(new.steps[same]))
        elif same > 0:
            starts.append(int(new.steps[same - 1]))
        else:
            return None
    start = None
    if starts:
        start = min(starts + [int(points.steps[0]) for points in fresh.values() if len(points)])
        fresh = {tag: points[points.steps >= start] for tag, points in wanted.items()}
    return Update(start, {tag: points for tag, points in fresh.items() if len(points)})


def _common_length(old: Points, new: Points) -> int:
    """How many points from the first on are the same in both."""
    size = min(len(old), len(new))
    same = (
        (old.steps[:size] == new.steps[:size])
        & (old.wall_times[:size] == new.wall_times[:size])
        & (old.values[:size].view(np.int64) == new.values[:size].view(np.int64))  # by their bits: NaN is NaN
    )
    return size if same.all() else int(np.argmin(same))
