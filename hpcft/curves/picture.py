"""The run's loss as one picture: training and validation against the step, each job in its colour."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcft.curves.points import Points, join_points, make_points
from hpcft.curves.stitch import JobCurve, Segment, Stitched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN = "train/loss"
VALIDATION = "validation/loss"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's, told apart by colour-blind readers too; without black and yellow (pale on white)."""
_PIXELS = 1500
"""Across the plot. More points than a few per pixel cannot be seen."""
_GREY = "#BBBBBB"
_INK = "#333333"
_TINT = "#F3F0E8"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "svg.fonttype": "none",  # words stay words: small files that can be searched
    "text.parse_math": False,  # a run may have a $ in its name
    "svg.hashsalt": "hpcft",  # the same curve gives the same file
}


class Phase(NamedTuple):
    """A stretch of the run that is marked."""

    name: str
    begins: int
    """Steps done before its first."""
    ends: int
    apart: bool
    """Whether its losses are of another kind than those before: no line leads from them to these."""


def draw(stitched: Stitched, out: Path, title: str, phases: Sequence[Phase] = ()) -> None:
    """Writes the picture to `out`, whole or not at all, and makes its folder; its suffix (.png, .svg) is the format.

    Raises ValueError for another suffix, and where no job has logged a loss yet; OSError if it cannot write.
    """
    drawable = out.suffix in (".png", ".svg")
    if drawable and not any(stitched.kept(tag) or stitched.superseded(tag) for tag in (TRAIN, VALIDATION)):
        raise ValueError("There is nothing to draw yet: no job of this run has logged a loss.")
    write_picture(out, lambda figure: _fill(figure, stitched, title, phases), (11.0, 6.0))


def write_picture(out: Path, fill: Callable[["Figure"], None], size: tuple[float, float]) -> None:
    """Writes what `fill` draws on a figure of this size, in inches, to `out`; raises as `draw` does."""
    if out.suffix not in (".png", ".svg"):
        raise ValueError(f"{out}: a picture is .png or .svg, not {out.suffix!r}.")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        fill(figure)
        with contextlib.suppress(FileExistsError):  # if it is a file, that is said when we write there
            out.parent.mkdir(parents=True)
        temporary = out.with_name(f".{out.stem}-{secrets.token_hex(4)}{out.suffix}")
        try:
            metadata = {"Date": None} if out.suffix == ".svg" else None
            figure.savefig(temporary, metadata=metadata)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


def thin(points: Points, first: int, last: int, pixels: int = _PIXELS) -> Points:
    """The points that show at `pixels` columns: of each its first, last, lowest, highest, and its gaps.

    As many points as before where there are few; a value that is not finite breaks the line, so it stays.
    """
    if len(points) <= 4 * pixels:
        return points
    column = (points.steps - first) * pixels // max(1, last - first)
    finite = np.isfinite(points.values)
    keep = np.zeros(len(points), dtype=np.bool_)
    for chosen in (np.flatnonzero(finite), np.flatnonzero(~finite)):
        for key in (points.values, points.steps):
            order = chosen[np.lexsort((key[chosen], column[chosen]))]
            new = np.flatnonzero(np.diff(column[order], prepend=-1, append=pixels + 1))
            keep[order[new[:-1]]] = True
            keep[order[new[1:] - 1]] = True
    return points[keep]


def _fill(figure: "Figure", stitched: Stitched, title: str, phases: Sequence[Phase]) -> None:
    axes = figure.add_subplot()
    shown = [part for tag in (TRAIN, VALIDATION) for part in (*stitched.kept(tag), *stitched.superseded(tag))]
    first = min(int(segment.points.steps[0]) for segment in shown)
    last = max(int(segment.points.steps[-1]) for segment in shown)
    drawn = _jobs_drawn(stitched)
    colours = {job.label: COLOURS[index % len(COLOURS)] for index, job in enumerate(drawn)}
    gaps = [phase.begins for phase in phases if phase.apart]
    margin = max(0.5, (last - first) * 0.015)
    axes.set_xlim(first - margin, last + margin)
    for tag, name in ((TRAIN, "train"), (VALIDATION, "validation")):
        for segment in stitched.superseded(tag):
            before = _left_at(stitched, tag, segment)
            points = thin(segment.points, first, last)
            _draw_line(axes, before, points, f"superseded-{name}-{segment.job.label}", _GREY, gaps)
        before = make_points([])
        for segment in stitched.kept(tag):
            points = thin(segment.points, first, last)
            _draw_line(axes, before, points, f"{name}-{segment.job.label}", colours[segment.job.label], gaps)
            before = points[-1:]
    _mark_starts(axes, drawn, colours)
    _mark_phases(axes, phases)
    dress(axes, title, "step", 38 if phases else 22)
    _explain(axes, stitched, drawn)


def _jobs_drawn(stitched: Stitched) -> list[JobCurve]:
    """The jobs with a surviving point of either loss, oldest first."""
    labels = {segment.job.label for tag in (TRAIN, VALIDATION) for segment in stitched.kept(tag)}
    return [job for job in stitched.jobs if job.label in labels]


def _left_at(stitched: Stitched, tag: str, segment: Segment) -> Points:
    """Where a superseded stretch left the curve: the job's last surviving point before it, if any."""
    for kept in stitched.kept(tag):
        before = kept.points[kept.points.steps < segment.points.steps[0]]
        if kept.job == segment.job:
            return before[-1:]
    return make_points([])


def _draw_line(axes: "Axes", before: Points, points: Points, name: str, colour: str, gaps: Sequence[int] = ()) -> None:
    """One line that sets out at the point `before`, if any, and is broken behind the steps in `gaps`; `name` becomes
    its id in the SVG."""
    whole = join_points([before, points])
    values = np.where(np.isfinite(whole.values), whole.values, np.nan)
    places = np.searchsorted(whole.steps, gaps, side="right")
    steps, values = np.insert(whole.steps, places, gaps), np.insert(values, places, np.nan)
    (line,) = axes.plot(steps, values, color=colour, linewidth=1.0, solid_joinstyle="round", gid=name)
    superseded = name.startswith("superseded")
    if "validation" in name:
        # The dot at `before` belongs to the job before, and is there already.
        line.set(linewidth=1.9, marker="o", markevery=slice(len(before), None), markeredgecolor="white")
        crowded = len(points) > 40 or len(axes.lines) > 60
        line.set(markersize=3.5 if crowded else 6.0, markeredgewidth=0.4 if crowded else 0.9)
    elif len(whole) == 1:
        line.set(marker="o", markersize=4.0)
    elif superseded:
        line.set(linewidth=2.4)  # a rim behind the curve that was trained again, even where both are the same
    if not superseded:
        # Earlier jobs lie on top: the line that sets out at their last dot shall not cross it.
        line.set(zorder=(4 if "validation" in name else 2) - len(axes.lines) / 10_000)
        if "train" in name:
            line.set_color(_paler(colour))
    else:
        line.set(zorder=1)


def _paler(colour: str) -> tuple[float, float, float]:
    """`colour` a quarter of the way to white, and opaque: what lies behind must not change a job's colour."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return (0.25 + 0.75 * red, 0.25 + 0.75 * green, 0.25 + 0.75 * blue)


def _mark_starts(axes: "Axes", drawn: list[JobCurve], colours: dict[str, str]) -> None:
    """A dashed line where each job after the first begins, and above the plot the name of every job."""
    low, high = axes.get_xlim()
    starts = [max(low, float(job.resume_step or 0)) for job in drawn]
    width = 0.8 if len(drawn) <= 20 else 0.4
    for job, start in zip(drawn[1:], starts[1:], strict=True):
        axes.axvline(start, color=_GREY, linewidth=width, dashes=(4, 3), zorder=0, gid=f"start-{job.label}")
    names = [job.label for job in drawn]
    if not _fit(starts, names, high - low):
        names = [f"{'job ' if job is drawn[0] else ''}{job.number}" for job in drawn]
    free = -np.inf
    for job, start, name in zip(drawn, starts, names, strict=True):
        if start < free:
            continue
        free = start + _width(name) * (high - low)
        axes.annotate(
            name, (start, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
            color=colours[job.label], fontsize=8.5, ha="left", va="bottom", annotation_clip=False,
        )  # fmt: skip


def _fit(starts: list[float], names: list[str], span: float) -> bool:
    gaps = np.diff([*starts, starts[0] + span * 1.02])
    return all(gap >= _width(name) * span for gap, name in zip(gaps, names, strict=True))


def _width(name: str) -> float:
    """How much of the plot's width a job's name takes, with a little air."""
    return 0.0065 * (len(name) + 1)


def _mark_phases(axes: "Axes", phases: Sequence[Phase]) -> None:
    """Tinted ground for every second phase, a line where one follows another, and names above those of the jobs."""
    low, high = axes.get_xlim()
    for number, (name, begins, ends, _) in enumerate(phases):
        if begins >= high:
            continue  # not begun yet
        left, right = (low if number == 0 else begins), (high if number == len(phases) - 1 else min(ends, high))
        if number % 2:
            axes.axvspan(left, right, facecolor=_TINT, edgecolor="none", zorder=-1, gid=f"phase-{name}")
        if number:
            axes.axvline(left, color=_INK, linewidth=1.1, zorder=0, gid=f"phase-begins-{name}")
        axes.annotate(
            f"phase {name}" if number == 0 else name, (left, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 19),
            textcoords="offset points", color=_INK, fontsize=9.5, fontweight="bold", ha="left", va="bottom",
            annotation_clip=False,
        )  # fmt: skip


def dress(axes: "Axes", title: str, below: str, pad: float = 22) -> None:
    """Title, grid and scales as all our pictures have them; `below` is said of the axis of steps, `pad` are the points
    between plot and title."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=pad)
    axes.set_xlabel(below, color=_INK)
    axes.set_ylabel("loss", color=_INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=_GREY, labelcolor=_INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)


def _explain(axes: "Axes", stitched: Stitched, drawn: list[JobCurve]) -> None:
    """The legend: what a line's look means; its colour is told by the names above the plot."""
    from matplotlib.lines import Line2D

    lines = []
    if stitched.kept(TRAIN):
        lines.append(Line2D([], [], color=_INK, linewidth=1.0, label="training loss"))
    if stitched.kept(VALIDATION):
        line = Line2D([], [], color=_INK, linewidth=1.9, marker="o", label="validation loss")
        line.set(markersize=6.0, markeredgecolor="white")
        lines.append(line)
    if stitched.superseded(TRAIN) or stitched.superseded(VALIDATION):
        lines.append(Line2D([], [], color=_GREY, linewidth=2.4, label="trained again by a later job"))
    if len(drawn) > 1:
        lines.append(Line2D([], [], color=_GREY, linewidth=0.8, dashes=(4, 3), label="a job begins"))
    axes.legend(handles=lines, loc="best", frameon=True, framealpha=0.9, edgecolor="none", labelcolor=_INK)
