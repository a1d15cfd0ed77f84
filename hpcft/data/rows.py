"""Rows: what a data file holds, as dicts, with a message that names the line of a broken one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError
from hpcft.textrows import Row, read_text_rows

__all__ = ["Row", "in_chunks", "is_missing", "read_rows", "rows_behind"]

PIECE = 4096
"""Rows of a table that are dicts at a time."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .parquet file, in its order. Raises UserError: unreadable, or no row in it.

    A csv's cells stay text as they are written: `NA` and `007` are no missing value and no number.
    """
    return list(rows_behind(path, 0))


def rows_behind(path: Path, done: int) -> Iterator[Row]:
    """The same, one by one, without so many at the beginning, which are hardly looked at."""
    count = 0
    for row in _read_parquet(path, done) if path.suffix == ".parquet" else read_text_rows(path, done):
        count += 1
        yield row
    if not count and not done:
        raise UserError(Fault(str(path), "holds no row."))


def in_chunks(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    """The same rows, some at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null in JSON, a gap in parquet, a csv row that is too short."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_parquet(path: Path, done: int) -> Iterator[Row]:
    import pyarrow  # only where it is needed
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            for group in groups:
                size = file.metadata.row_group(group).num_rows
                if done >= size:
                    done -= size
                    continue
                for batch in file.iter_batches(PIECE, row_groups=[group]):
                    yield from _dicts(batch, done)
                    done = max(0, done - batch.num_rows)
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(Fault(str(path), f"no valid parquet: {' '.join(str(error).split())}.")) from None


def _dicts(batch: Any, done: int) -> Iterator[Row]:
    yield from batch.slice(min(done, batch.num_rows)).to_pylist()
