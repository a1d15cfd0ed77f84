"""Preference: two responses to a prompt, read apart, and which of them is the better one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.data.features import Feature
from hpcft.data.preparation import CHUNK, Chunk
from hpcft.data.rows import Row, in_chunks
from hpcft.recipe import VERDICTS, Recipe
from hpcft.tasks.frame import Frame, frame_of_one, frame_of_two
from hpcft.tasks.labelled import read_labelled, tokens_of


@dataclass(frozen=True)
class Prefer:
    """What this task needs to make features of rows."""

    tokenizer: Any
    labels: tuple[str, ...]
    """Of the first response being better, of the second, and of a tie, if there are any."""
    frame: Frame
    with_prompt: bool
    """Whether the prompt stands before each response, or is left out."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Features in the order of the rows. Raises UserError: a column missing or empty, an unknown label."""
        columns = ["prompt"] * self.with_prompt + ["response_a", "response_b"]
        for some in in_chunks(iter(rows), CHUNK):
            found, labels = read_labelled(some, columns, self.labels, done, path)
            texts = [tokens_of(self.tokenizer, texts) for texts in zip(*found, strict=True)]
            features = [self._feature(*row) for row in zip(labels, *texts, strict=True)]
            done += len(some)
            yield Chunk(features, done)

    def _feature(self, label: int, *texts: list[int]) -> Feature:
        *prompt, a, b = texts
        first, kinds = self.frame.around([*prompt, a])
        second, more = self.frame.around([*prompt, b])
        segments = None if kinds is None or more is None else kinds + more
        return Feature(first + second, [False] * len(first + second), label, len(first), segments)


def make_prefer(recipe: Recipe, tokenizer: Any) -> Prefer:
    """The task as the recipe wants it."""
    data = recipe.data
    with_prompt = data.pair == "with_prompt"
    frame = (frame_of_two if with_prompt else frame_of_one)(tokenizer, data.max_length)
    return Prefer(tokenizer, data.labels or VERDICTS, frame, with_prompt)
