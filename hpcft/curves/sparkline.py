"""The training loss in one line of text, each job in its colour."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from hpcft.curves.figure import look
from hpcft.curves.runcurves import TRAIN, RunCurves

BLOCKS = "▁▂▃▄▅▆▇█"
WIDEST = 80
"""Characters of the curve; more say no more."""
LEAST = 10
"""Below that no curve is drawn."""
FOLD = 10.0
"""From where the highest mean is so many times the lowest, heights are those of logarithms: else all but the start of a
loss would look flat."""


def sparkline(curves: RunCurves, width: int) -> Text | None:
    """A block for the mean of the losses in each of at most `width` characters, less the words behind them.

    `█▆▄▃▂▂▁▁ 6.2 to 1.3`, from the mean of the first to that of the last. None where no loss is logged, or no room is.
    """
    kept = curves.stitched.kept(TRAIN)
    points = curves.stitched.curve(TRAIN)
    finite = np.isfinite(points.values)
    if not finite.any():
        return None
    owner = np.repeat(np.arange(len(kept)), [len(part.points) for part in kept])
    steps, values, owner = points.steps[finite], points.values[finite], owner[finite]
    columns = min(width - len("  0.0000 to 0.0000, log"), WIDEST, len(values))
    if columns < min(LEAST, len(values)) or columns < 1:
        return None
    column = ((steps - steps[0]) * columns // (steps[-1] - steps[0] + 1)).astype(np.int64)
    there = np.flatnonzero(np.bincount(column, minlength=columns))
    means = np.bincount(column, values, columns)[there] / np.bincount(column, minlength=columns)[there]
    logarithmic = means.min() > 0 and means.max() / means.min() >= FOLD
    heights = np.log(means) if logarithmic else means
    span = float(np.ptp(heights)) or 1.0
    levels = ((heights - heights.min()) / span * (len(BLOCKS) - 1)).round().astype(int)
    began = {job.label: index for index, job in enumerate(j for j in curves.stitched.jobs if j.label in curves.places)}
    line, before = Text(), 0
    for at, level in zip(there.tolist(), levels.tolist(), strict=True):
        job = kept[int(owner[column == at][-1])].job
        line.append(" " * (at - before)).append(BLOCKS[level], look(began[job.label]).colour)
        before = at + 1
    return line.append(f"  {means[0]:.4g} to {means[-1]:.4g}{', log' if logarithmic else ''}")
