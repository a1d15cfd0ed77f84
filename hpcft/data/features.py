"""Features: token ids of every row with a mark on those that are learnt, made once and then mapped from disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcft.errors import Fault, UserError
from hpcft.rundir import sync_files, write_json

Array = npt.NDArray[np.generic]
CHUNK = 256
"""Rows tokenised between two looks at the stop flag."""


@dataclass(frozen=True)
class Feature:
    """One row as the model sees it; both of length T, T >= 2."""

    tokens: Sequence[int]
    trained: Sequence[bool]
    """Whether each token is a target. The first one never is: nothing stands before it to predict it from."""


@dataclass(frozen=True)
class Features:
    """All rows of a split, one behind the other, mapped from the files in `folder`."""

    folder: Path

    @cached_property
    def tokens(self) -> npt.NDArray[np.int32]:
        """(tokens of all rows,)"""
        array: npt.NDArray[np.int32] = np.load(self.folder / "tokens.npy", mmap_mode="r")
        return array

    @cached_property
    def trained(self) -> npt.NDArray[np.bool_]:
        """(tokens of all rows,)"""
        array: npt.NDArray[np.bool_] = np.load(self.folder / "trained.npy", mmap_mode="r")
        return array

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(rows + 1,): row i is tokens[offsets[i]:offsets[i + 1]]."""
        array: npt.NDArray[np.int64] = np.load(self.folder / "offsets.npy", mmap_mode="r")
        return array

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,): tokens of each row."""
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> npt.NDArray[np.int64]:
        """(rows,): how many tokens of each row are learnt."""
        return np.add.reduceat(self.trained.astype(np.int64), self.offsets[:-1])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every token and mark: two jobs with the same one learn the same."""
        return str(json.loads((self.folder / "complete.json").read_text())["fingerprint"])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Tokens and marks of one row, both (T,)."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.trained[start:end]


def stored_features(folder: Path) -> Features | None:
    """Features that an earlier job finished; later edits of the data do not reach a run that has begun."""
    return Features(folder) if (folder / "complete.json").exists() else None


def store_features(folder: Path, chunks: Iterable[Sequence[Feature]], poll: Callable[[], None]) -> Features:
    """Features on disk, from chunks of rows; `poll` is called after each and may raise to give up."""
    tokens: list[npt.NDArray[np.int32]] = []
    trained: list[npt.NDArray[np.bool_]] = []
    for chunk in chunks:
        for feature in chunk:
            marks = np.array(feature.trained, dtype=np.bool_)
            marks[0] = False
            tokens.append(np.array(feature.tokens, dtype=np.int32))
            trained.append(marks)
        poll()
    if not tokens:
        raise UserError(Fault(str(folder.name), "its rows hold no text."))
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in tokens])]).astype(np.int64)
    arrays: dict[str, Array] = {
        "tokens": np.concatenate(tokens),
        "trained": np.concatenate(trained),
        "offsets": offsets,
    }
    shutil.rmtree(folder, ignore_errors=True)  # what a killed job left half-written
    folder.mkdir(parents=True, mode=0o700)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(array.tobytes())
        np.save(folder / f"{name}.npy", array)
    sync_files(folder)
    lengths = np.diff(offsets)
    counted = {"rows": len(lengths), "tokens": int(offsets[-1]), "longest": int(lengths.max())}
    write_json(folder / "complete.json", {"fingerprint": digest.hexdigest(), **counted})
    return Features(folder)
