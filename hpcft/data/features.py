"""Features: token ids of every row with a mark on those that are learnt, made once and then mapped from disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILES = {
    "tokens": np.int32,
    "trained": np.bool_,
    "offsets": np.int64,
    "targets": np.int32,
    "labels": np.int32,
    "firsts": np.int32,
    "segments": np.uint8,
}
"""What features are on disk: bare numbers, so that a file grows by what is put behind it. The last three are there
where rows have what they hold."""


@dataclass(frozen=True)
class Feature:
    """One row as the model sees it; both of length T, T >= 2."""

    tokens: Sequence[int]
    trained: Sequence[bool]
    """Whether each token is a target. The first one never is: nothing stands before it to predict it from."""
    label: int | None = None
    """Number of the row's class, which is its one target; no token is one then."""
    first: int | None = None
    """Tokens of the first of two texts that the model reads apart; the second's stand behind them."""
    segments: Sequence[int] | None = None
    """Of each token the text that it belongs to, 0 or 1, for models that are told (token types)."""


@dataclass(frozen=True)
class Features:
    """All rows of a split, one behind the other, mapped from the files in `folder`."""

    folder: Path

    @cached_property
    def tokens(self) -> npt.NDArray[np.int32]:
        """(tokens of all rows,)"""
        return self._mapped("tokens")

    @cached_property
    def trained(self) -> npt.NDArray[np.bool_]:
        """(tokens of all rows,)"""
        return self._mapped("trained")

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(rows + 1,): row i is tokens[offsets[i]:offsets[i + 1]]."""
        return self._mapped("offsets")

    @cached_property
    def targets(self) -> npt.NDArray[np.int32]:
        """(rows,): how many tokens of each row are learnt."""
        return self._mapped("targets")

    @cached_property
    def labels(self) -> npt.NDArray[np.int32] | None:
        """(rows,): the class of each row; None where tokens are learnt."""
        return self._mapped("labels") if (self.folder / "labels").exists() else None

    @cached_property
    def firsts(self) -> npt.NDArray[np.int32] | None:
        """(rows,): tokens of each row's first text; None where the texts of a row are not read apart."""
        return self._mapped("firsts") if (self.folder / "firsts").exists() else None

    @cached_property
    def segments(self) -> npt.NDArray[np.uint8] | None:
        """(tokens of all rows,): 0 or 1; None where the model is not told."""
        return self._mapped("segments") if (self.folder / "segments").exists() else None

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,): tokens of each row."""
        return np.diff(self.offsets)

    def pairs(self, rows: Sequence[int]) -> int:
        """Pairs of tokens that see each other in these rows: of each text that is read by itself the squared length."""
        lengths = self.lengths[rows].astype(np.int64)
        if self.firsts is None:
            return int((lengths**2).sum())
        firsts = self.firsts[rows].astype(np.int64)
        return int((firsts**2 + (lengths - firsts) ** 2).sum())

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

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        # As a plain array: each slice of a memmap costs ten times as much.
        return np.asarray(np.memmap(self.folder / name, FILES[name], mode="r"))


def stored_features(folder: Path) -> Features | None:
    """Features that an earlier job finished; later edits of the data do not reach a run that has begun."""
    return Features(folder) if (folder / "complete.json").exists() else None


def files_in(folder: Path) -> list[str]:
    """Names of the files of features that a folder has, always in the same order."""
    return [name for name in FILES if (folder / name).exists()]
