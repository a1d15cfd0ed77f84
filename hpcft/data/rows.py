"""Rows: what a data file holds, as dicts, with a message that names the line of a broken one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError
from hpcft.textrows import CUT_UP, LONGEST, Row, read_text_rows

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
            number = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size <= done:
                    number += size
                    continue
                for batch in file.iter_batches(PIECE, row_groups=[group]):
                    yield from _dicts(path, batch, number, done)
                    number += batch.num_rows
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(Fault(str(path), f"no valid parquet: {' '.join(str(error).split())}.")) from None


def _dicts(path: Path, batch: Any, number: int, done: int) -> Iterator[Row]:
    """The rows of a batch with so many rows before it, those behind the first `done`."""
    skipped = min(max(0, done - number), batch.num_rows)
    number, batch = number + skipped, batch.slice(skipped)
    _check_lengths(path, batch, number)
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # it says the byte, and not whose
        for place, name in product(range(batch.num_rows), batch.schema.names):
            try:
                batch.column(name)[place].as_py()
            except UnicodeDecodeError as error:
                bad = f'its "{name}" is no UTF-8 text: byte 0x{error.object[error.start]:02x} at {error.start + 1}.'
                raise UserError(Fault(f"{path}, row {number + place + 1}", bad, "Write it as UTF-8.")) from None
        raise
    yield from rows


def _check_lengths(path: Path, batch: Any, number: int) -> None:
    """Raise UserError for the first text that is too long, before it is made a string."""
    from pyarrow import compute, types

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if types.is_string(column.type) or types.is_large_string(column.type):
            lengths = compute.binary_length(column)
            if (compute.max(lengths).as_py() or 0) > LONGEST:
                place = compute.index(compute.greater(lengths, LONGEST), True).as_py()
                what = f'its "{name}" is longer than {LONGEST:,} bytes.'
                raise UserError(Fault(f"{path}, row {number + place + 1}", what, CUT_UP))
