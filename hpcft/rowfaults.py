"""What is wrong with rows, in the same words before the queue and in the job."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hpcft.errors import Fault

NO_TEXT: dict[type, str] = {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes"}
"""What can stand in a cell and has no text of its own: Python's way to print it would be learnt."""


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null in JSON, a gap in parquet, a csv row that is too short."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def quoted(names: Iterable[str]) -> str:
    """`"text", "label"`."""
    return ", ".join(f'"{name}"' for name in names)


def cell_fault(row: Mapping[str, Any], column: str, *, filled: bool) -> str | None:
    """What is wrong with a cell that has to have text, in words; a blank where it is to be `filled`.

    >>> cell_fault({"text": None}, "text", filled=True)
    '"text" has no value.'
    """
    return gap_fault(row, column, filled=filled) or text_fault(row, column)


def gap_fault(row: Mapping[str, Any], column: str, *, filled: bool) -> str | None:
    """That there is nothing in the cell, in words."""
    if column not in row:
        return f'has no column "{column}".'
    if is_missing(row[column]):
        return f'"{column}" has no value.'
    if filled and not str(row[column]).strip():
        return f'"{column}" is empty.'
    return None


def text_fault(row: Mapping[str, Any], column: str) -> str | None:
    """That what is there is no text, in words.

    >>> text_fault({"text": ["a", "b"]}, "text")
    '"text" is a list, not text.'
    """
    kind = NO_TEXT.get(type(row.get(column)))
    return f'"{column}" is {kind}, not text.' if kind else None


def class_faults(labels: Iterable[str], place: object) -> list[Fault]:
    """What makes these labels no classes: they are fewer than two, or only a slip tells two of them apart."""
    known = sorted(labels)
    if len(known) < 2:
        what = f'every row has the label "{known[0]}".' if known else "has no row with a label."
        return [Fault(str(place), what, "Give rows of two classes or more.")]
    alike: dict[str, list[str]] = {}
    for label in known:
        alike.setdefault(" ".join(label.split()).casefold(), []).append(label)
    return [
        Fault(str(place), f"the labels {quoted(some)} differ in case or blanks alone.", fix)
        for some in alike.values()
        if len(some) > 1
        for fix in ["Make them one; if each is a class, name all classes in data.labels."]
    ]


class RowFaults:
    """What is wrong with some rows of a place; of what many have, the first is named."""

    def __init__(self, place: object) -> None:
        self._place = place
        self._found: dict[str, tuple[Fault, int]] = {}

    def add(self, number: int, what: str, fix: str = "", kind: str | None = None) -> None:
        """One more row; `kind` is what it has in common with others, if not the words."""
        first, count = self._found.get(kind or what, (Fault(f"{self._place}, row {number}", what, fix), 0))
        self._found[kind or what] = first, count + 1

    def told(self, *, all_seen: bool = False) -> list[Fault]:
        """A fault for each kind; there may be more rows of it unless `all_seen`."""
        least = "" if all_seen else "at least "
        return [
            replace(fault, what=f"{fault.what} Likewise {least}{_rows(count - 1)} behind it.") if count > 1 else fault
            for fault, count in self._found.values()
        ]


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"
