"""The table of starts that were found: what each logged, where it was taken to have gone on, and what became of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hpcft.curves.infer import Taken
from hpcft.curves.starts import Found, Start
from hpcft.curves.stitch import JobCurve, Stitched

RECORD = "starts.txt"
"""The same words, left in the view for whoever finds it."""
WIDTH = 160
"""Characters of a line off a terminal."""


@dataclass(frozen=True)
class Told:
    """What of the starts is worth a new table."""

    names: tuple[str, ...]
    taken: tuple[Taken, ...]
    doubts: tuple[str, ...]


def print_starts(found: Found, told: Told, jobs: Sequence[JobCurve], stitched: Stitched, out: Path) -> None:
    """Print the table and the doubts, and leave both in the view."""
    terminal = Console()
    if not terminal.is_terminal:
        terminal = Console(width=WIDTH)
    text = Console(file=io.StringIO(), width=WIDTH)
    for console in (terminal, text):
        for line in lines(found, told, jobs, stitched):
            console.print(line, markup=False, highlight=False, soft_wrap=not isinstance(line, Table))
    assert isinstance(text.file, io.StringIO)
    with contextlib.suppress(OSError):  # it is a record, and the view is whole without it
        (out / RECORD).write_text(text.file.getvalue(), encoding="utf-8")


def lines(found: Found, told: Told, jobs: Sequence[JobCurve], stitched: Stitched) -> list[Table | str]:
    """What is printed, part by part."""
    count = len(found.starts)
    head = f"{count} start{'' if count == 1 else 's'}; where each went on is inferred from its steps, not known:"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, collapse_padding=True)
    for name in ("start", "folder or file", "steps", "went on from", "because", "superseded", "damage"):
        table.add_column(name, justify="right" if name in ("start", "went on from") else "left", overflow="fold")
    for number, (start, one, job) in enumerate(zip(found.starts, told.taken, jobs, strict=True), 1):
        went_on = "" if one.resume_step is None else str(one.resume_step)
        table.add_row(
            str(number), start.name, _steps(start), went_on, one.why, superseded(stitched, job), damage(start)
        )
    left = [
        f"left out: {path}, which has curves of its own; stitch such folders by themselves" for path in found.left_out
    ]
    return [head, table, *left, *(f"warning: {doubt}" for doubt in told.doubts)]


def _steps(start: Start) -> str:
    return "none" if start.first_step is None else f"{start.first_step} to {start.last_step}"


def superseded(stitched: Stitched, job: JobCurve) -> str:
    """The steps of a start that a later one made again, and how many points that are."""
    parts = [segment.points for tag in stitched.tags for segment in stitched.superseded(tag) if segment.job == job]
    if not parts:
        return ""
    steps = np.concatenate([points.steps for points in parts])
    return f"{steps.min()} to {steps.max()}, {len(steps)} points"


def damage(start: Start) -> str:
    """What of its files could not be read."""
    events = sum(file.damage.bad_frames for file in start.files)
    lost = sum(file.damage.lost_bytes for file in start.files)
    words = [f"{events} events broken"] if events else []
    words += [f"{lost} bytes lost"] if lost else []
    return "; ".join([*words, *(reason for file in start.files for reason in file.damage.unreadable)])
