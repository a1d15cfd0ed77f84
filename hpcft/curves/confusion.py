"""Confusion matrices as one picture: what was true against what was answered, one matrix beside the other."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcft.disk import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE = "no label"
"""The column of rows in whose answer no label was found."""
CROWDED = 9
"""Labels from which on a cell has room for its count alone."""
LONGEST = 16
"""Characters of a label."""
_INK = "#333333"
_STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10.5, "text.parse_math": False}


def draw_confusions(reports: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Write the matrices of these reports (as metrics.report makes them, by name) as PNG, whole or not at all.

    A cell's colour is its share of the rows with that truth, so that rare labels show as well as common ones.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = max(len(report["labels"]) for report in reports.values())
    unread = any(part["unparsed"] for report in reports.values() for part in report["per_class"])
    side = min(11.0, max(3.4, 0.95 * labels if labels < CROWDED else 0.5 * labels))
    with matplotlib.rc_context(_STYLE):
        size = (1.9 + (side + 0.5) * len(reports), side + 1.9)
        figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        for place, (name, report) in enumerate(reports.items()):
            axes = figure.add_subplot(1, len(reports), place + 1)
            _fill(axes, name, report, first=place == 0, unread=unread)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
    write_whole(out, buffer.getvalue())


def _fill(axes: Axes, name: str, report: Mapping[str, Any], *, first: bool, unread: bool) -> None:
    labels = [_short(label) for label in report["labels"]]
    table = np.array(report["confusion"])
    columns = list(labels)
    if unread:
        table = np.column_stack([table, [part["unparsed"] for part in report["per_class"]]])
        columns.append(NONE)
    wanted = np.array([part["rows"] for part in report["per_class"]])
    shares = table / np.maximum(wanted, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    crowded = len(labels) >= CROWDED
    for row, column in np.ndindex(*table.shape):
        words = f"{table[row, column]}" if crowded else f"{table[row, column]}\n{shares[row, column]:.0%}"
        if crowded and not table[row, column]:
            continue
        colour = "white" if shares[row, column] > 0.55 else _INK
        axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=9 if crowded else 10)
    low, high = report["interval"]
    title = f"accuracy {report['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    axes.set_title(f"{title}\nmacro-F1 {report['macro_f1']:.2f}, {report['rows']} rows", fontsize=10.5, color=_INK)
    axes.annotate(
        name, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 40), textcoords="offset points", ha="center",
        fontsize=13, fontweight="bold", color=_INK,
    )  # fmt: skip
    tilt = crowded or sum(map(len, columns)) > 9 * len(columns)
    axes.set_xticks(range(len(columns)), columns, rotation=40 if tilt else 0, ha="right" if tilt else "center")
    axes.set_yticks(range(len(labels)), labels if first else [""] * len(labels))
    axes.set_xlabel("answer", color=_INK)
    if first:
        axes.set_ylabel("truth", color=_INK)
    axes.tick_params(length=0, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    for edge in range(1, max(table.shape)):
        axes.axhline(edge - 0.5, color="white", linewidth=1.5)
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)


def _short(label: str) -> str:
    plain = " ".join(str(label).split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"
