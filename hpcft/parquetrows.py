"""Rows in .parquet files: read alike in the job and, where pyarrow is there, before the queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError
from hpcft.textrows import CUT_UP, LONGEST, Row

PIECE = 4096
"""Rows of a table that are dicts at a time."""
BUFFER = 1 << 16
"""Bytes that are read of a column at a time."""
WRITE_IT = "Write it with pandas' to_parquet."


def read_parquet_rows(
    path: Path, done: int = 0, columns: Sequence[str] | None = None, piece: int = PIECE
) -> Iterator[Row]:
    """The rows behind the first `done`, with all columns or these; so many are in memory at a time.

    Raises UserError that names the file or the row.
    """
    with _opened(path) as file:
        number = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if number + size <= done:
                number += size
                continue
            for batch in file.iter_batches(piece, row_groups=[group], columns=columns):
                yield from _dicts(path, batch, number, done)
                number += batch.num_rows


def parquet_columns(path: Path) -> list[str]:
    """The columns of a file. Raises UserError that names it."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow  # only where it is needed
    from pyarrow.parquet import ParquetFile

    try:
        # pandas writes a million rows as one group, which would be read whole to see the first.
        with ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            yield file
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None
    except (pyarrow.ArrowException, ValueError) as error:
        what = f"is no valid parquet: {' '.join(str(error).split()).rstrip('.')}."
        raise UserError(Fault(str(path), what, WRITE_IT)) from None


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
