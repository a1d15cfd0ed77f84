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

FILES = {"tokens": np.int32, "trained": np.bool_, "offsets": np.int64, "targets": np.int32}
"""What features are on disk: bare numbers, so that a file grows by what is put behind it."""


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
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,): tokens of each row."""
        return np.diff(self.offsets)

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
