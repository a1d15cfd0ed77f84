"""Where each start of a training went on, inferred from the steps that it logged: nobody has written it down.

A start that logs every 10 steps and first at 1210 made its first step after 1200: the step of the checkpoint that it
went on from. Up to there the starts before it keep their points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.points import Points
from hpcft.curves.starts import Start, overlapping

FEW = 5
"""Points by whose mean the level of a curve at its beginning and its end is told."""


@dataclass(frozen=True)
class Taken:
    """Where a start is taken to have gone on."""

    resume_step: int | None
    """Steps done before its first; None where it has logged no scalar."""
    why: str


def infer(starts: Sequence[Start], *, by_clock: bool = True) -> tuple[list[Taken], list[str]]:
    """Where each of these starts, oldest first, went on; and in words what speaks against their order or the steps.

    `by_clock`: they were put in order by their clocks, which may be wrong.
    """
    taken: list[Taken] = []
    doubts: list[str] = []
    reached: int | None = None
    for place, start in enumerate(starts):
        one = _taken(starts[:place], start, reached)
        taken.append(one)
        if one.resume_step is None or start.last_step is None:
            continue
        if reached is not None:
            doubts += _doubts(starts, place, one.resume_step, reached)
        if start.last_step > one.resume_step:
            reached = start.last_step
    if beginning := next((start for start in starts if start.curves), None):
        _, points, stride = densest(beginning)
        if stride and points.steps[0] > 2 * stride:
            first = int(points.steps[0])
            doubts.append(f"start {starts.index(beginning) + 1} begins at step {first}: what came before is not here.")
    return taken, [*doubts, *(_clock_doubts(starts) if by_clock else ())]


def densest(start: Start) -> tuple[str, Points, int | None]:
    """The tag by which a start is judged, its points, and the steps from one to the next, None of one point alone.

    It is the tag with the most points; but one that is logged at even steps goes before one that is not, as the epoch
    that transformers logs beside training and evaluation, if it has half as many.
    """
    most = max(len(points) for points in start.curves.values())
    many = {tag: points for tag, points in start.curves.items() if 2 * len(points) >= most}

    def rank(tag: str) -> tuple[bool, int, int, bool, str]:
        points = many[tag]
        return not _is_even(points), -len(points), int(points.steps[0]), "loss" not in tag, tag

    tag = min(many, key=rank)
    return tag, many[tag], _stride(many[tag])


def _stride(points: Points) -> int | None:
    return int(np.median(np.diff(points.steps))) if len(points) > 1 else None


def _is_even(points: Points) -> bool:
    return len(points) > 2 and len(set(np.diff(points.steps).tolist())) == 1


def _taken(before: Sequence[Start], start: Start, reached: int | None) -> Taken:
    if not start.curves:
        return Taken(None, "it has logged no scalar")
    if reached is None:
        return Taken(0, "the first")
    tag, points, stride = densest(start)
    first = int(points.steps[0])
    if stride is None and first >= reached:
        # One step alone, where the training before it stood or behind that, takes nothing away: an evaluation, as
        # transformers logs it after training.
        return Taken(reached, f"all that it logged is at step {first}")
    if stride is None:
        known = [_stride(one.curves[tag]) for one in before if tag in one.curves]
        stride = next((each for each in reversed(known) if each), 1)
    step, why = max(0, first - stride), f"its {tag} begins at {first}, every {stride}"
    for other, others in sorted(start.curves.items()):
        # One that is logged more seldom may say it closer: the checkpoint lies behind its last point before the cut.
        every = _stride(others) if _is_even(others) else None
        if every and step < (bound := int(others.steps[0]) - every) < first:
            step, why = bound, f"its {tag} begins at {first}, its {other} at {int(others.steps[0])}, every {every}"
    if start.purge is not None and step < start.purge - 1 < first:
        step, why = start.purge - 1, f"it was begun with purge_step {start.purge}"
    elif start.purge is not None and start.purge == step + 1:
        why = f"it was begun with purge_step {start.purge}"
    return Taken(step, why)


def _doubts(starts: Sequence[Start], place: int, step: int, reached: int) -> list[str]:
    """What is to be said of one start's resume step, where others before it had come to `reached`."""
    number, start = place + 1, starts[place]
    tag, _, stride = densest(start)
    if step == 0:
        return [_begun_again(starts, place, tag, reached)]
    if stride and step > reached:
        return [f"no file has the steps from {reached + 1} to {step}, before start {number}."]
    return []


def _begun_again(starts: Sequence[Start], place: int, tag: str, reached: int) -> str:
    number, points = place + 1, starts[place].curves[tag]
    words = f"start {number} begins at step {int(points.steps[0])} again, where start {place} had come to {reached}"
    earlier = next((one.curves[tag] for one in reversed(starts[:place]) if tag in one.curves), None)
    if earlier is not None and "loss" in tag:
        began, ended, now = (
            float(part.mean()) for part in (*_ends(earlier), points.values[:FEW])
        )  # NaN is near nothing
        if abs(now - ended) < abs(now - began) / 3:
            return (
                f"{words}, but its {tag} of {now:.4g} goes on where that one ended ({ended:.4g}; it began at "
                f"{began:.4g}): its steps were counted from 0 anew. It is shown as begun afresh, in place of all "
                "before it; only steps that are counted through can be stitched."
            )
    return (
        f"{words}: taken as begun afresh, in place of all before it. Stitch each by itself if they are two trainings."
    )


def _ends(points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return points.values[:FEW], points.values[-FEW:]


def _clock_doubts(starts: Sequence[Start]) -> list[str]:
    doubts = []
    for one, next_ in overlapping(starts):
        if not starts[next_].curves:
            continue
        doubts.append(
            f"start {next_ + 1} began while start {one + 1} still wrote: two processes of one training, two trainings, "
            "or clocks that differ."
        )
    for late, start in enumerate(starts):
        if not start.curves:
            continue
        _, points, stride = densest(start)
        needs = int(points.steps[0]) - (stride or 1)
        before = max((one.last_step or 0 for one in starts[:late]), default=0)
        if needs <= before:
            continue
        for other in range(late + 1, len(starts)):
            last, first = starts[other].last_step, starts[other].first_step
            if last is not None and first is not None and first <= needs <= last:
                doubts.append(
                    f"by the clocks start {late + 1} ran before start {other + 1}, by the steps after it: it begins at "
                    f"{int(points.steps[0])}, and start {other + 1} has {first} to {last}. If a clock was wrong, name "
                    "their folders in the order in which they ran, with --in-order."
                )
                break
    return doubts
