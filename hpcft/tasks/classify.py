"""Classification: a text, and the class that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.data.features import Feature
from hpcft.data.preparation import CHUNK, Chunk
from hpcft.data.rows import Row, in_chunks
from hpcft.recipe import Recipe
from hpcft.tasks.frame import Frame, frame_of_one
from hpcft.tasks.labelled import read_labelled, tokens_of


@dataclass(frozen=True)
class Classify:
    """What this task needs to make features of rows."""

    tokenizer: Any
    labels: tuple[str, ...]
    frame: Frame

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Features in the order of the rows. Raises UserError: a column missing or empty, an unknown label."""
        for some in in_chunks(iter(rows), CHUNK):
            columns, labels = read_labelled(some, ["text"], self.labels, done, path)
            texts = tokens_of(self.tokenizer, [text for (text,) in columns])
            features = [self._feature(text, label) for text, label in zip(texts, labels, strict=True)]
            done += len(some)
            yield Chunk(features, done)

    def _feature(self, text: list[int], label: int) -> Feature:
        tokens, _ = self.frame.around([text])  # of a single text all types are 0
        return Feature(tokens, [False] * len(tokens), label)


def make_classify(recipe: Recipe, tokenizer: Any) -> Classify:
    """The task as the recipe wants it."""
    return Classify(tokenizer, recipe.data.labels or (), frame_of_one(tokenizer, recipe.data.max_length))
