"""What is wrong with rows, in the same words before the queue and in the job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpcft.errors import Fault

NO_TEXT: dict[type, str] = {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes"}
"""What can stand in a cell and has no text of its own: Python's way to print it would be learnt."""


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null in JSON, a gap in parquet, a csv row that is too short."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell_fault(row: Mapping[str, Any], column: str, *, filled: bool) -> str | None:
    """What is wrong with a cell that has to have text, in words; a blank where it is to be `filled`.

    >>> cell_fault({"text": ["a", "b"]}, "text", filled=True)
    '"text" is a list, not text.'
    """
    if column not in row:
        return f'has no column "{column}".'
    value = row[column]
    if is_missing(value):
        return f'"{column}" has no value.'
    if kind := NO_TEXT.get(type(value)):
        return f'"{column}" is {kind}, not text.'
    if filled and not str(value).strip():
        return f'"{column}" is empty.'
    return None


class RowFaults:
    """What is wrong with some rows of a place; of what many have, the first is named."""

    def __init__(self, place: object) -> None:
        self._place = place
        self._found: dict[str, tuple[Fault, int]] = {}

    def add(self, number: int, what: str, fix: str = "", kind: str | None = None) -> None:
        """One more row; `kind` is what it has in common with others, if not the words."""
        first, count = self._found.get(kind or what, (Fault(f"{self._place}, row {number}", what, fix), 0))
        self._found[kind or what] = first, count + 1

    def told(self) -> list[Fault]:
        """A fault for each kind."""
        return [
            fault
            if count == 1
            else Fault(fault.where, f"{fault.what} Likewise {_rows(count - 1)} behind it.", fault.fix)
            for fault, count in self._found.values()
        ]


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"
