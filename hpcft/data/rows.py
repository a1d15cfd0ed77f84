"""Rows: what a data file holds, as dicts, with a message that names the line of a broken one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError

Row = dict[str, Any]
PIECE = 4096
"""Rows of a table that are dicts at a time."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl, .csv or .parquet file, in its order. Raises UserError: unreadable, or no row in it.

    A csv's cells stay text as they are written: `NA` and `007` are no missing value and no number.
    """
    return list(rows_behind(path, 0))


def rows_behind(path: Path, done: int) -> Iterator[Row]:
    """The same, one by one, without so many at the beginning, which are hardly looked at."""
    count = 0
    try:
        for row in _read_jsonl(path, done) if path.suffix == ".jsonl" else _read_table(path, done):
            count += 1
            yield row
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None
    except UnicodeDecodeError as error:
        raise UserError(Fault(str(path), f"is no UTF-8 text (byte {error.start}).", "Save it as UTF-8.")) from None
    if not count and not done:
        raise UserError(Fault(str(path), "holds no row."))


def in_chunks(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    """The same rows, some at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null in JSON, a gap in parquet, a csv row that is too short."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_jsonl(path: Path, done: int) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if done:
                done -= 1
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(Fault(f"{path}:{number}", f"no JSON: {error.msg}.")) from None
            if not isinstance(row, dict):
                raise UserError(Fault(f"{path}:{number}", "no JSON object.", 'Write {"column": value, ...}.'))
            yield row


def _read_table(path: Path, done: int) -> Iterator[Row]:
    import pandas  # only where it is needed: 0.4 s

    try:
        if path.suffix == ".csv":
            table = pandas.read_csv(path, dtype=str, keep_default_na=False)
        else:
            table = pandas.read_parquet(path)
    except UnicodeDecodeError:
        raise
    except (ValueError, pandas.errors.ParserError) as error:
        raise UserError(Fault(str(path), f"no valid {path.suffix[1:]}: {error}.")) from None
    for start in range(done, len(table), PIECE):  # as dicts they take many times the memory
        for row in table.iloc[start : start + PIECE].to_dict("records"):
            yield {str(key): value for key, value in row.items()}
