"""Runs side by side in the terminal: a table as wide as that allows, and below it the settings that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from hpcft.launch.changes import masked
from hpcft.launch.compare import Result, words_on_best
from hpcft.launch.show import STATE_COLOURS, console

Cells = dict[str, str]
"""What a run has under each heading."""
LEFT_OUT = ("state", "macro F1", "train loss", "GPU h", "hours", "lowest (step)", "95% interval", "steps", "validation")
"""One after the other where the measures alone are too wide; `--json` has them all."""
GAP = 2


def print_table(by: str | None, order: Sequence[Result], absent: Sequence[str]) -> None:
    """The table, the settings that are too wide for it, the best run, and what is missing."""
    headings, settings = settings_of(order)
    measures = [_measures(one, order) for one in order]
    rows = [{"run": one.name, **some, **more} for one, some, more in zip(order, settings, measures, strict=True)]
    shown, below = fit(rows, list(headings), console.width)
    console.print(_table(rows, shown, list(measures[0]) if measures else []))
    for row in rows if below else []:
        words = ", ".join(f"{headings[each]} {row[each]}" for each in below if row[each] != "-")
        console.print(f"{row['run']}: {words}", markup=False, highlight=False, soft_wrap=True)
    majority = {one.majority for one in order if one.majority is not None}
    if by:
        console.print(f"\n{words_on_best(by, order)}", markup=False, highlight=False, soft_wrap=True)
    if len(majority) == 1:
        print(f"the commonest answer alone: {majority.pop():.1%}")
    if absent:
        print(f"not there: {', '.join(absent)}")


def fit(rows: Sequence[Cells], settings: Sequence[str], width: int) -> tuple[list[str], list[str]]:
    """The headings that go side by side into so many characters, and those of settings that are to stand below.

    First the widest settings give way, then measures; the run's name never does.

    >>> fit([{"run": "a", "seed": "1", "path": "/a/long/way", "state": "running"}], ["seed", "path"], 20)
    (['run', 'seed', 'state'], ['path'])
    """
    shown = list(rows[0]) if rows else []
    widths = {heading: max(len(heading), *(len(row[heading]) for row in rows)) for heading in shown}
    giving = [*sorted(settings, key=lambda heading: -widths[heading]), *LEFT_OUT]
    below = []
    for heading in giving:
        if sum(widths[each] + GAP for each in shown) - GAP <= width:
            break
        if heading in shown:
            shown.remove(heading)
            below += [heading] if heading in settings else []
    return shown, [heading for heading in settings if heading in below]


def _table(rows: Sequence[Cells], shown: Sequence[str], measures: Sequence[str]) -> Table:
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, collapse_padding=True)
    for heading in shown:
        right = heading in measures and heading != "state"
        made.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        colour = STATE_COLOURS.get(row["state"], "")
        made.add_row(*(Text(row[heading], colour if heading == "state" else "") for heading in shown))
    return made


def settings_of(order: Sequence[Result]) -> tuple[dict[str, str], list[Cells]]:
    """The keys in which runs differ, by heading, and what each run has under them.

    A heading is the key's last part where nothing else is called so; of files the part of the path that differs is
    shown.
    """
    keys = list(order[0].settings) if order else []
    short = [key.rpartition(".")[2] for key in keys]
    taken = [*short, *LEFT_OUT]
    headings = {key: last if taken.count(last) == 1 else key for key, last in zip(keys, short, strict=True)}
    found: list[Cells] = [{} for _ in order]
    for key in keys:
        values = [one.settings[key] for one in order]
        paths = [value for value in values if isinstance(value, str) and value.startswith("/")]
        around = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""  # noqa: PTH120
        for cells, value in zip(found, values, strict=True):
            cells[headings[key]] = masked(key, _words(value, around))
    empty = [headings.pop(key) for key in keys if all(cells[headings[key]] == "-" for cells in found)]
    for cells in found:
        for heading in empty:
            del cells[heading]
    return {heading: key for key, heading in headings.items()}, found


def _words(value: Any, around: str) -> str:
    if value in (None, {}, []):
        return "-"
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return os.path.relpath(value, around) if around and value.startswith("/") else value


def _measures(one: Result, order: Sequence[Result]) -> Cells:
    """What came of a run, less what none of them has."""
    found = {"steps": f"{one.step}/{one.total_steps or '?'}", "train loss": _number(one.train_loss)}
    if any(other.validation_loss is not None for other in order):
        lowest = "-" if one.lowest_at is None else f"{_number(one.lowest_validation_loss)} ({one.lowest_at})"
        found |= {"validation": _number(one.validation_loss), "lowest (step)": lowest}
    if any(other.accuracy is not None for other in order):
        interval = "-" if one.interval is None else f"{one.interval[0]:.1%} to {one.interval[1]:.1%}"
        found |= {"accuracy": _share(one.accuracy), "95% interval": interval, "macro F1": _share(one.macro_f1)}
    on_gpus = any(other.gpu_hours is not None for other in order)
    hours = {"GPU h": _number(one.gpu_hours, 2)} if on_gpus else {"hours": _number(one.hours, 2)}
    return {**found, **hours, "state": one.state}


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
