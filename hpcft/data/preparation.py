"""Preparation: rows become features shard by shard, so that a job that is cut leaves all but the last to the next."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hpcft.data.features import FILES, Feature, Features, files_in
from hpcft.disk import read_json, sync_files, sync_folder, write_json
from hpcft.errors import Fault, UserError

Array = npt.NDArray[Any]

CHUNK = 512
"""Rows that are tokenised in one call, between two looks at the stop flag."""
SHARD = 16
"""Chunks between two records of progress: what a kill loses at most."""


@dataclass(frozen=True)
class Chunk:
    """Features of some rows, and what it takes to go on behind them."""

    features: Sequence[Feature]
    rows: int
    """Rows of the data file that are done with it."""


Chunks = Callable[[int], Iterator[Chunk]]
"""The chunks behind so many rows."""


def prepare(folder: Path, source: str, chunks: Chunks, poll: Callable[[], None]) -> Features:
    """Features in `folder`, made of all chunks; `poll` is called after each and may raise to give up.

    What an earlier call has left half-done beside it is gone on from if it came of the same `source`, and the features
    are the same to the last bit. Raises UserError: not a single feature.
    """
    part = folder.with_name(f".{folder.name}.part")
    done = _begin(part, source)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((part / name).open("ab")) for name in FILES}
        for number, chunk in enumerate(chunks(done), 1):
            _append(files, chunk.features)
            if number % SHARD == 0:
                _record(part, source, files, chunk)
            poll()
    if (part / "targets").stat().st_size == 0:
        raise UserError(Fault(str(folder.name), "its rows hold no text."))
    finish(part, folder)
    return Features(folder)


def finish(part: Path, folder: Path) -> None:
    """Put the files of a folder in place as features, whole."""
    for name in files_in(part):
        if (part / name).stat().st_size == 0:  # rows of this task have nothing of the kind
            (part / name).unlink()
    lengths = Features(part).lengths
    counted = {"rows": len(lengths), "tokens": int(lengths.sum()), "longest": int(lengths.max())}
    write_json(part / "complete.json", {"fingerprint": digest(part), **counted})
    sync_files(part)
    shutil.rmtree(folder, ignore_errors=True)  # of an hpcft that made them there
    part.rename(folder)
    (folder / "progress.json").unlink(missing_ok=True)
    sync_folder(folder.parent)


def digest(folder: Path) -> str:
    """SHA-256 over the files of features."""
    found = hashlib.sha256()
    for name in files_in(folder):
        with (folder / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _begin(part: Path, source: str) -> int:
    """Rows that are done, with the files as they were then."""
    record = read_json(part / "progress.json")
    if record and record["source"] == source:
        sizes: dict[str, int] = record["bytes"]
        if all((part / name).exists() and (part / name).stat().st_size >= size for name, size in sizes.items()):
            for name, size in sizes.items():
                os.truncate(part / name, size)
            return int(record["rows"])
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    for name in FILES:
        (part / name).touch(mode=0o600)
    (part / "offsets").write_bytes(np.zeros(1, FILES["offsets"]).tobytes())
    return 0


def _append(files: Mapping[str, BinaryIO], features: Sequence[Feature]) -> None:
    """Put these features behind those that are there."""
    if not features:
        return
    lengths = np.array([len(row.tokens) for row in features])
    ends = np.cumsum(lengths)
    tokens: Array = np.fromiter(chain.from_iterable(row.tokens for row in features), FILES["tokens"], ends[-1])
    trained: Array = np.fromiter(chain.from_iterable(row.trained for row in features), FILES["trained"], ends[-1])
    trained[ends - lengths] = False
    before = files["tokens"].tell() // tokens.itemsize
    arrays: dict[str, Array] = {
        "tokens": tokens,
        "trained": trained,
        "offsets": (before + ends).astype(FILES["offsets"]),
        "targets": np.add.reduceat(trained, ends - lengths, dtype=FILES["targets"]),
        "segments": np.fromiter(chain.from_iterable(row.segments or () for row in features), FILES["segments"]),
    }
    arrays |= {
        "labels": np.array([row.label for row in features if row.label is not None], FILES["labels"]),
        "firsts": np.array([row.first for row in features if row.first is not None], FILES["firsts"]),
    }
    if len(arrays["labels"]):
        arrays["targets"] = np.ones_like(arrays["labels"])
    for name, array in arrays.items():
        files[name].write(array.tobytes())


def _record(part: Path, source: str, files: Mapping[str, BinaryIO], chunk: Chunk) -> None:
    """Make what is written so far outlive a kill."""
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    sizes = {name: file.tell() for name, file in files.items()}
    record = {"source": source, "rows": chunk.rows, "bytes": sizes}
    write_json(part / "progress.json", record)
