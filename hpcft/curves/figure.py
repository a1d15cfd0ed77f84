"""What all our pictures have in common: colours that stay apart, words, grid, and files that are written whole."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcft.curves.axis import LABELS, Axis
from hpcft.curves.runcurves import TRAIN, VALIDATION
from hpcft.errors import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's, told apart by colour-blind readers too; without black and yellow (pale on white)."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.4), (5, 1, 1, 1))
"""Strokes and gaps, in widths of the line: what tells lines of one colour apart when the colours have run out."""
FORMATS = (".svg", ".png", ".html")
GREY = "#BBBBBB"
INK = "#333333"
TINT = "#F3F0E8"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "svg.fonttype": "none",  # words stay words: small files that can be searched
    "text.parse_math": False,  # a run may have a $ in its name
    "svg.hashsalt": "hpcft",  # the same curve gives the same file
}


class Look(NamedTuple):
    """How a line is told from its neighbours."""

    colour: str
    dashes: tuple[float, ...]
    """None for a solid line."""


def look(index: int) -> Look:
    """Of the line with this number, from 0: the colours, then again with dashes. Neighbours never share one."""
    return Look(COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)])


def is_evaluation(tag: str) -> bool:
    """Whether the points of a tag are few and far between: they are drawn as marks."""
    return tag.startswith(("validation/", "test/"))


def panels(tags: Iterable[str]) -> dict[str, list[str]]:
    """The tags that share a plot, by what they measure.

    >>> panels(["train/loss", "validation/loss", "train/learning_rate"])
    {'loss': ['train/loss', 'validation/loss'], 'learning_rate': ['train/learning_rate']}
    """
    found: dict[str, list[str]] = {}
    for tag in tags:
        found.setdefault(tag.rpartition("/")[2], []).append(tag)
    return found


def chosen(tags: Sequence[str], known: Iterable[str]) -> list[str]:
    """The tags that a picture shows: those that were asked for, else the losses. Raises ValueError for one that is not
    there, and where there is no point at all."""
    there = sorted({*known})
    for tag in tags:
        if tag not in there:
            raise ValueError(f'nothing is logged as "{tag}". {did_you_mean(tag, there) if there else ""}'.rstrip())
    found = list(dict.fromkeys(tags)) or [tag for tag in (TRAIN, VALIDATION) if tag in there]
    if not found:
        raise ValueError("There is nothing to draw yet: no job has logged a loss.")
    return found


def write_picture(out: Path, fill: Callable[[Figure], None], size: tuple[float, float]) -> None:
    """Writes what `fill` draws on a figure of this size, in inches, to `out`, whole or not at all, and makes its
    folder.

    Raises ValueError for a suffix other than .svg and .png, OSError if it cannot write.
    """
    if out.suffix not in (".svg", ".png"):
        raise ValueError(f"{out}: this picture is .svg or .png, not {out.suffix!r}.")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
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


def dress(axes: Axes, title: str, below: Axis | None, measure: str, pad: float = 22) -> None:
    """Title, grid and scales as all our pictures have them; `below` is the axis that is named, None under a plot that
    shares it with the next, `pad` are the points between plot and title."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=pad)
    axes.set_ylabel(measure, color=INK)
    if below:
        axes.set_xlabel(LABELS[below], color=INK)
    if below == "step":
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 2.5, 5, 10], integer=True))
    elif below == "time":
        _tell_time(axes)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=GREY, labelcolor=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)


def _tell_time(axes: Axes) -> None:
    """Ticks at round times of this machine's zone, on an axis of seconds since 1970; the date where it is a new one."""
    from datetime import datetime

    from matplotlib.dates import AutoDateLocator
    from matplotlib.ticker import FixedLocator, FuncFormatter

    zone = datetime.now().astimezone().tzinfo
    low, high = axes.get_xlim()
    locator: Any = AutoDateLocator(minticks=4, maxticks=8, tz=zone)  # type: ignore[no-untyped-call]
    days = locator.tick_values(*(datetime.fromtimestamp(end, zone) for end in (low, high)))
    ticks = [tick for tick in dict.fromkeys(round(day * 86400) for day in days) if low <= tick <= high]
    words: dict[int, str] = {}
    before = ""
    for tick in ticks:
        when = datetime.fromtimestamp(tick, zone)
        date, clock = f"{when:%Y-%m-%d}", f"{when:%H:%M:%S}" if high - low < 600 else f"{when:%H:%M}"
        words[tick] = f"{clock}\n{date}" if date != before else clock
        before = date
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: words.get(round(second), "")))
    axes.set_xlabel(f"time ({zone})", color=INK)
