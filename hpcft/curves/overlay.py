"""Curves of several runs in one picture: training loss above, validation loss below, a colour a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.picture import COLOURS, TRAIN, VALIDATION, dress, write_picture
from hpcft.curves.points import Points
from hpcft.curves.stitch import Stitched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1, 1, 1)))  # type: ignore[assignment]
"""What tells runs of one colour apart; there are as many looks as both together make."""
MEANS = 75
"""Points of a training curve: of a few runs on top of each other the mean shows, and single steps hide."""


def draw_overlay(curves: Mapping[str, Stitched], out: Path, title: str, best: str | None = None) -> None:
    """Writes the picture to `out`, whole or not at all; its suffix (.png, .svg) is the format.

    `curves` are by the run's name, in the order of the legend, and `best` is drawn thicker. Raises ValueError for
    another suffix, and where no run has logged a loss; OSError if it cannot write.
    """
    panels = [tag for tag in (TRAIN, VALIDATION) if any(stitched.kept(tag) for stitched in curves.values())]
    if out.suffix in (".png", ".svg") and not panels:
        raise ValueError("There is nothing to draw yet: no job of these runs has logged a loss.")
    write_picture(out, lambda figure: _fill(figure, curves, panels, title, best), (11.0, 3.0 + 2.6 * len(panels)))


def _fill(figure: Figure, curves: Mapping[str, Stitched], panels: Sequence[str], title: str, best: str | None) -> None:
    axes: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    names = list(curves)
    short = _short(names)
    for panel, tag in zip(axes, panels, strict=True):
        width = 1
        for index, (name, stitched) in enumerate(curves.items()):
            points = stitched.curve(tag)
            if not len(points):
                continue
            steps, values, mean_of = _means(points, MEANS if tag == TRAIN else len(points))
            width = max(width, mean_of)
            (line,) = panel.plot(steps, values, label=short[index], gid=f"{tag.replace('/', '-')}-{name}")
            line.set(color=COLOURS[index % len(COLOURS)], linestyle=DASHES[index // len(COLOURS) % len(DASHES)])
            line.set(linewidth=2.6 if name == best else 1.3, zorder=3 if name == best else 2)
            if tag == VALIDATION or len(steps) == 1:
                line.set(marker="o", markersize=4.0 if len(steps) <= 40 else 2.5)
        dress(panel, title if panel is axes[0] else "", "step" if panel is axes[-1] else "")
        means = f", means of {width} points" if width > 1 else ""
        panel.set_ylabel("validation loss" if tag == VALIDATION else f"training loss{means}")
    lines, labels = max((panel.get_legend_handles_labels() for panel in axes), key=lambda found: len(found[1]))
    labels = [f"{label} (best)" if best and label == short[names.index(best)] else label for label in labels]
    figure.legend(lines, labels, loc="outside right upper", frameon=False, fontsize=9)


def _means(points: Points, number: int) -> tuple[Array, Array, int]:
    """Steps and values of at most `number` means of as many neighbouring points each, and how many those are."""
    width = max(1, -(-len(points) // number))
    starts = np.arange(0, len(points), width)
    sizes = np.diff([*starts, len(points)])
    values = np.where(np.isfinite(points.values), points.values, np.nan)
    return np.add.reduceat(points.steps, starts) / sizes, np.add.reduceat(values, starts) / sizes, width


def _short(names: Sequence[str]) -> list[str]:
    """The names less the words that all begin with, but for the word that a number needs before it.

    >>> _short(["grid-bert-full", "grid-bert-frozen"]), _short(["grid-seed-0", "grid-seed-1"])
    (['full', 'frozen'], ['seed-0', 'seed-1'])
    """
    words = [name.split("-") for name in names]
    common = 0
    while len(names) > 1 and len({tuple(parts[: common + 1]) for parts in words}) == 1:
        common += 1
    if any(len(parts) == common or parts[common][:1].isdigit() for parts in words):
        common = max(0, common - 1)
    return ["-".join(parts[common:]) for parts in words]
