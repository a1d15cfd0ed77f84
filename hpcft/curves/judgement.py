"""Whether a run learns, overfits or is done, in words, from its two curves of loss."""

from dataclasses import dataclass

import numpy as np

from hpcft.curves.points import Points
from hpcft.curves.runcurves import TRAIN, VALIDATION, RunCurves

FEWEST = 5
"""Validation losses below which nothing is said."""
LAST = 3
"""The last third of the run, whose slope is what the run does now."""
MATTERS = 0.01
"""Of a loss: a smaller change is none."""
SCATTERS = 3.0
"""Of the points around their line, that a rise has to be more than."""
SURE = 2.0
"""Standard errors beyond which a slope is no chance."""


@dataclass(frozen=True)
class Trend:
    """A straight line through the last points of a curve."""

    change: float
    """From its first point to its last, as a share of where it begins."""
    sure: bool
    """Whether that is more than the scatter of the points explains."""

    @property
    def falls(self) -> bool:
        return self.sure and self.change < -MATTERS

    @property
    def rises(self) -> bool:
        return self.sure and self.change > MATTERS


def judge_run(run: RunCurves) -> str:
    """`judge` of a run's stitched curves; of phases that do not learn the same, the newest that has a step, alone."""
    train, validation = run.stitched.curve(TRAIN), run.stitched.curve(VALIDATION)
    last = int(train.steps[-1]) if len(train) else 0
    since = max((phase.begins for phase in run.phases if phase.apart and phase.begins < last), default=0)
    if since:
        train, validation = train[train.steps > since], validation[validation.steps > since]
    return judge(train, validation)


def judge(train: Points, validation: Points) -> str:
    """One sentence: overfits, diverges, still learning, memorises, has levelled off, or what is missing to tell.

    Losses are token means in nats; the curves need not have their points at the same steps.
    """
    if not len(train):
        return "nothing to judge: no training loss yet"
    for name, curve in (("training", train), ("validation", validation)):
        if not np.isfinite(curve.values).all():
            step = int(curve.steps[~np.isfinite(curve.values)][0])
            return f"broken: the {name} loss at step {step} is no number"
    if not len(validation):
        return "no verdict on overfitting: the run has no validation loss (data.validation, evaluate.every)"
    if len(validation) < FEWEST:
        return f"too few evaluations to tell: {len(validation)}, and {FEWEST} are needed"
    best = int(validation.values.argmin())
    least, where = float(validation.values[best]), int(validation.steps[best])
    now, last = float(validation.values[-1]), int(validation.steps[-1])
    if _has_risen(validation, best):
        since = trend(train, where, last)
        rise = f"the best validation loss was {least:.4f} at step {where}, it is {now:.4f} at step {last}"
        if since.rises:
            return f"diverges since step {where}: {rise}, and the training loss rises too"
        falling = "falls on" if since.falls else "does not rise"
        return f"overfits since step {where}: {rise}, while the training loss {falling}"
    begin = last - (last - int(validation.steps[0])) // LAST
    held_out, learnt = trend(validation, begin, last), trend(train, begin, last)
    of_late = f"over the last third, from step {begin} on"
    if held_out.falls:
        return f"still learning: the validation loss fell by {-held_out.change:.1%} {of_late}; more steps may help"
    if held_out.rises and learnt.rises:
        return f"diverges: both losses rise {of_late}"
    if learnt.falls:
        words = f"the training loss fell by {-learnt.change:.1%} {of_late}, the validation loss ({now:.4f}) did not"
        return f"begins to overfit: {words}"
    gained = 1 - least / float(validation.values[0])
    if gained < MATTERS:
        words = f"the validation loss is {now:.4f} and was {float(validation.values[0]):.4f} at the start"
        return f"underfits: {words}; a higher train.learning_rate or more steps may help"
    return f"has levelled off: neither loss changes {of_late}; validation is {now:.4f}, {gained:.1%} below its start"


def _has_risen(validation: Points, best: int) -> bool:
    """Whether the losses behind the best one go up, to more above it than they scatter; two of them at least."""
    values, behind = validation.values, validation[best + 1 :]
    if len(behind) < 2:
        return False
    # Second differences know nothing of a slope: their scatter is sqrt(6) times that of the points.
    scatter = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / np.sqrt(6)
    near = 2 if len(values) >= 2 * FEWEST else 1
    around = float(np.median(values[max(0, best - near) : best + near + 1]))  # the least of many is low by chance
    rise = float(np.median(behind.values[-3:])) - around
    if rise <= max(MATTERS * around, SCATTERS * scatter):
        return False
    if len(behind) == 2:
        return bool(behind.values[1] > behind.values[0])
    return trend(behind, int(behind.steps[0]), int(behind.steps[-1])).rises


def trend(curve: Points, first: float, last: float) -> Trend:
    """The line through all points from step `first` to `last`; flat where there are fewer than three."""
    inside = (curve.steps >= first) & (curve.steps <= last)
    steps, values = curve.steps[inside].astype(np.float64), curve.values[inside]
    if len(steps) < 3:
        return Trend(0.0, False)
    span = steps[-1] - steps[0]
    place = (steps - steps.mean()) / span
    slope = float(place @ values / (place @ place))  # over the whole span
    middle = float(values.mean())
    rest = values - middle - slope * place
    error = np.sqrt(float(rest @ rest) / (len(steps) - 2) / float(place @ place))
    begins = middle + slope * float(place[0])
    return Trend(slope / max(abs(begins), 1e-12), bool(abs(slope) > SURE * error))
