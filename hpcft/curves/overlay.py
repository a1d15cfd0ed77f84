"""Curves of several runs in one picture: training loss above, validation loss below, a colour a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.axis import Axis, places
from hpcft.curves.figure import chosen, dress, is_evaluation, look, write_picture
from hpcft.curves.points import Points
from hpcft.curves.runcurves import RunCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
MEANS = 75
"""Points of a training curve: of a few runs on top of each other the mean shows, and single steps hide."""
NAMES = {"train/loss": "training loss", "validation/loss": "validation loss"}


def draw_overlay(
    runs: Sequence[RunCurves], out: Path, title: str, best: str | None = None,
    tags: Sequence[str] = (), axis: Axis = "step",
) -> None:  # fmt: skip
    """Writes the picture to `out`, whole or not at all; its suffix (.png, .svg) is the format.

    `runs` are in the order of the legend, and the one named `best` is drawn thicker. Without `tags`, the losses of
    training and validation. Raises ValueError for another suffix, a tag that is not there, and where no run has logged
    a loss; OSError if it cannot write.
    """
    shown = chosen(tags, [tag for run in runs for tag in run.stitched.tags if run.stitched.kept(tag)])
    size = (11.0, 3.0 + 2.6 * len(shown))
    write_picture(out, lambda figure: _fill(figure, runs, shown, title, best, axis), size)


def _fill(
    figure: Figure, runs: Sequence[RunCurves], tags: Sequence[str], title: str, best: str | None, axis: Axis
) -> None:
    rows: list[Axes] = list(figure.subplots(len(tags), 1, sharex=True, squeeze=False)[:, 0])
    names = [run.name for run in runs]
    short = shorten(names)
    for axes, tag in zip(rows, tags, strict=True):
        width = 1
        for index, run in enumerate(runs):
            points = run.stitched.curve(tag)
            if not len(points):
                continue
            at = np.concatenate([places(run, part.job, part.points, axis) for part in run.stitched.kept(tag)])
            at, values, mean_of = _means(at, points, len(points) if is_evaluation(tag) else MEANS)
            width = max(width, mean_of)
            (line,) = axes.plot(at, values, label=short[index], gid=f"{tag.replace('/', '-')}-{run.name}")
            style = look(index)
            line.set(color=style.colour, linestyle=(0, style.dashes) if style.dashes else "-")
            line.set(linewidth=2.6 if run.name == best else 1.3, zorder=3 if run.name == best else 2)
            if is_evaluation(tag) or len(at) == 1:
                line.set(marker="o", markersize=4.0 if len(at) <= 40 else 2.5)
        means = f", means of {width} points" if width > 1 else ""
        last = axis if axes is rows[-1] else None
        dress(axes, title if axes is rows[0] else "", last, f"{NAMES.get(tag, tag)}{means}")
    if axis == "hours":
        rows[0].set_xlim(left=0)  # each run began then
    lines, labels = max((axes.get_legend_handles_labels() for axes in rows), key=lambda found: len(found[1]))
    labels = [f"{label} (best)" if best and label == short[names.index(best)] else label for label in labels]
    figure.legend(lines, labels, loc="outside right upper", frameon=False, fontsize=9)


def _means(at: Array, points: Points, number: int) -> tuple[Array, Array, int]:
    """Places and values of at most `number` means of as many neighbouring points each, and how many those are."""
    width = max(1, -(-len(points) // number))
    starts = np.arange(0, len(points), width)
    sizes = np.diff([*starts, len(points)])
    values = np.where(np.isfinite(points.values), points.values, np.nan)
    return np.add.reduceat(at, starts) / sizes, np.add.reduceat(values, starts) / sizes, width


def shorten(names: Sequence[str]) -> list[str]:
    """The names less the words that all begin with, but for the word that a number needs before it.

    >>> shorten(["grid-bert-full", "grid-bert-frozen"]), shorten(["grid-seed-0", "grid-seed-1"])
    (['full', 'frozen'], ['seed-0', 'seed-1'])
    """
    words = [name.split("-") for name in names]
    common = 0
    while len(names) > 1 and len({tuple(parts[: common + 1]) for parts in words}) == 1:
        common += 1
    if any(len(parts) == common or parts[common][:1].isdigit() for parts in words):
        common = max(0, common - 1)
    return ["-".join(parts[common:]) for parts in words]
