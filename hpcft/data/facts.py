"""Facts of rows: what has to be known of each before it can be said which are taken, read in one pass that resumes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcft.data.diverse import word_sums
from hpcft.data.rows import in_chunks
from hpcft.recipe import TASKS, Recipe
from hpcft.rowfaults import is_missing
from hpcft.template import PromptTemplate
from hpcft.textrows import Row, label_of

CHUNK = 512
"""Rows between two looks at the stop flag."""
SHARD = 64
"""Chunks that are put on disk together: what a kill loses at most."""
ENCODE = json.JSONEncoder(default=str).encode
Facts = dict[str, npt.NDArray[Any]]
"""Of all rows: `same` and `id`, hashes of what the task reads and of the id; `by` and `balance`, hashes of a class, all
(rows, 2); `has_id`; `empty`; `tokens`; `words`, see diverse. What the recipe does not ask for is not there."""


@dataclass(frozen=True)
class Reader:
    """What finds the facts of rows."""

    recipe: Recipe
    columns: Sequence[str]
    """Those that the task reads."""
    template: PromptTemplate | None = None
    tokenizer: Any = None
    """Where rows are chosen by their tokens."""

    @property
    def _needs_empty(self) -> bool:
        keep = self.recipe.data.filter
        return self.tokenizer is not None or (keep is not None and keep.empty is not None)

    def facts(self, rows: Sequence[Row]) -> Facts:
        """Of these rows."""
        data = self.recipe.data
        seed = data.split.seed if data.split else 0
        found: Facts = {
            "same": _hashes([[row.get(name) for name in self._said(row)] for row in rows], seed),
            "id": _hashes([row.get("id") for row in rows], 0),
            "has_id": np.array([not is_missing(row.get("id")) for row in rows]),
            "empty": np.array([self._empty(row) for row in rows]) if self._needs_empty else np.zeros(len(rows), bool),
        }
        if data.split and data.split.by:
            found["by"] = _hashes([_class(row, data.split.by) for row in rows], 0)
        if data.filter and data.filter.balance:
            found["balance"] = _hashes([_class(row, data.filter.balance) for row in rows], 0)
        if self.tokenizer is not None:
            found["tokens"] = self._lengths(rows, found["empty"])
        if data.filter and data.filter.diverse:
            found["words"] = word_sums([" ".join(self._texts(row)) for row in rows])
        return found

    def _said(self, row: Row) -> Sequence[str]:
        """Columns by which two rows are the same, and by which rows are drawn: of `prefer` the prompt is one of them
        whether it is read or not, so that both ways to read pairs hold out the same rows."""
        if self.recipe.task == "prefer" and "prompt" in row:
            return TASKS["prefer"].columns
        return self.columns

    def _empty(self, row: Row) -> bool:
        """Whether the task could not use this row. In a prompt a column may be blank: a context is often optional."""
        written = (self.template.completion,) if self.template else self.columns
        return any(is_missing(row.get(name)) for name in self.columns) or any(
            not str(row[name]).strip() for name in written
        )

    def _texts(self, row: Row) -> list[str]:
        """What the model reads of a row: the rendered prompt and completion, or each text of it."""
        if self.template is not None:
            return ["".join(self.template.render({name: row.get(name) or "" for name in self.columns}))]
        return [str(row.get(name) or "") for name in self.columns if name != "label"]

    def _lengths(self, rows: Sequence[Row], empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Tokens of each row, with the end-of-text token that these tasks put behind it; 0 for one that is empty."""
        texts = [[] if lacks else self._texts(row) for row, lacks in zip(rows, empty, strict=True)]
        flat = [text for some in texts for text in some]
        ids = iter(self.tokenizer(flat, return_attention_mask=False, verbose=False)["input_ids"] if flat else ())
        end = self.recipe.task in ("instruct", "corpus")
        return np.array([sum(len(next(ids)) for _ in some) + (end and bool(some)) for some in texts], dtype=np.int32)


def read_facts(
    part: Path | None, rows: Callable[[int], Iterator[Row]], reader: Reader, poll: Callable[[], None]
) -> Facts:
    """The facts of all rows, which `rows(done)` reads behind the first `done`; `poll` may raise to give up.

    What an earlier call has left in the folder `part` is gone on from. Raises UserError as reading the rows does.
    """
    shards = _stored(part) if part else []
    done, fresh = sum(len(shard["same"]) for shard in shards), []
    for chunk in in_chunks(rows(done), CHUNK):
        fresh.append(reader.facts(chunk))
        if len(fresh) == SHARD:
            shards.append(_joined(fresh))
            fresh = []
            if part:
                _store(part, len(shards) - 1, shards[-1])
        poll()
    return _joined([*shards, *fresh])


def _joined(some: Sequence[Facts]) -> Facts:
    return {name: np.concatenate([facts[name] for facts in some]) for name in some[0]}


def _class(row: Row, column: str) -> str:
    """The value of a column of classes; of rows that have none, a class of their own."""
    value = row.get(column)
    return "" if is_missing(value) else label_of(value)


def _hashes(values: Sequence[Any], seed: int) -> npt.NDArray[np.uint64]:
    """(values, 2): 128 bits of each, so that two of a billion are never the same by chance."""
    if not any(value is not None for value in values):
        return np.zeros((len(values), 2), np.uint64)
    fresh = hashlib.blake2b(digest_size=16, key=str(seed).encode())
    joined = bytearray()
    for value in values:
        found = fresh.copy()
        found.update(ENCODE(value).encode())
        joined += found.digest()
    return np.frombuffer(bytes(joined), np.uint64).reshape(-1, 2)


def _store(part: Path, number: int, facts: Facts) -> None:
    part.mkdir(parents=True, exist_ok=True, mode=0o700)
    writing = part / f".{number:06d}.npz"
    np.savez(writing, allow_pickle=False, **facts)
    writing.rename(part / f"{number:06d}.npz")


def _stored(part: Path) -> list[Facts]:
    """The shards of an earlier job, as far as they follow each other and can be read."""
    shards: list[Facts] = []
    while (path := part / f"{len(shards):06d}.npz").exists():
        try:
            with np.load(path) as file:
                shards.append({name: file[name] for name in file.files})
        except (OSError, ValueError, KeyError, EOFError):  # a disk that was full
            shutil.rmtree(part, ignore_errors=True)
            return []
    return shards
