"""Pairs: two texts read as one, and what the first says of the second, or the second answers to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.data.features import Feature
from hpcft.data.preparation import CHUNK, Chunk
from hpcft.data.rows import Row, in_chunks
from hpcft.recipe import Recipe
from hpcft.tasks.frame import Frame, frame_of_two
from hpcft.tasks.labelled import read_labelled, tokens_of


@dataclass(frozen=True)
class Entail:
    """What this task needs to make features of rows."""

    tokenizer: Any
    labels: tuple[str, ...]
    frame: Frame

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Features in the order of the rows. Raises UserError: a column missing or empty, an unknown label."""
        for some in in_chunks(iter(rows), CHUNK):
            columns, labels = read_labelled(some, ["first", "second"], self.labels, done, path)
            firsts, seconds = (tokens_of(self.tokenizer, texts) for texts in zip(*columns, strict=True))
            features = [self._feature(*row) for row in zip(firsts, seconds, labels, strict=True)]
            done += len(some)
            yield Chunk(features, done)

    def _feature(self, first: list[int], second: list[int], label: int) -> Feature:
        tokens, segments = self.frame.around([first, second])
        return Feature(tokens, [False] * len(tokens), label, segments=segments)


def make_entail(recipe: Recipe, tokenizer: Any) -> Entail:
    """The task as the recipe wants it."""
    frame = frame_of_two(tokenizer, recipe.data.max_length, recipe.data.separator)
    return Entail(tokenizer, recipe.data.labels or (), frame)
