"""Rows: what a data file holds, as dicts, with a message that names the line of a broken one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.parquetrows import read_parquet_rows
from hpcft.textrows import Row, read_text_rows

__all__ = ["Row", "in_chunks", "read_rows", "rows_behind"]


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .parquet file, in its order. Raises UserError: unreadable, or no row in it.

    A csv's cells stay text as they are written: `NA` and `007` are no missing value and no number.
    """
    return list(rows_behind(path, 0))


def rows_behind(path: Path, done: int) -> Iterator[Row]:
    """The same, one by one, without so many at the beginning, which are hardly looked at."""
    count = 0
    for row in read_parquet_rows(path, done) if path.suffix == ".parquet" else read_text_rows(path, done):
        count += 1
        yield row
    if not count and not done:
        raise UserError(Fault(str(path), "holds no row."))


def in_chunks(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    """The same rows, some at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk
