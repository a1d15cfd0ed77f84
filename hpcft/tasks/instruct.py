"""Instruction tuning: a prompt template around each row, and a loss on the completion or on all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.data.features import Feature
from hpcft.data.preparation import CHUNK, Chunk
from hpcft.data.rows import Row, in_chunks
from hpcft.errors import UserError
from hpcft.recipe import Recipe
from hpcft.rowfaults import RowFaults, cell_fault
from hpcft.tasks.tokenize import tokenize
from hpcft.template import PromptTemplate, read_template


@dataclass(frozen=True)
class Instruct:
    """What this task needs to make features of rows."""

    template: PromptTemplate
    tokenizer: Any
    max_length: int
    full: bool
    """Whether the prompt counts in the loss too."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Features in the order of the rows. Raises UserError: a column missing, a completion cut off entirely."""
        for some in in_chunks(iter(rows), CHUNK):
            features = self._chunk(some, done, path)
            done += len(some)
            yield Chunk(features, done)

    def _chunk(self, rows: Sequence[Row], start: int, path: Path) -> list[Feature]:
        faults = RowFaults(path)
        pairs: list[tuple[str, str]] = []
        for number, row in enumerate(rows, start + 1):
            written = self.template.completion
            cells = ((column, column == written) for column in self.template.columns)
            if wrong := next(filter(None, (cell_fault(row, column, filled=filled) for column, filled in cells)), None):
                faults.add(number, wrong)
                continue
            pairs.append(self.template.render(row))
        if told := faults.told():
            raise UserError(told)
        features = []
        texts = [prompt + completion for prompt, completion in pairs]
        for number, (text, pair) in enumerate(zip(tokenize(self.tokenizer, texts), pairs, strict=True), start + 1):
            boundary = len(pair[0])
            # A token across the boundary (" positive" with its space) holds the completion's first letters.
            trained = [self.full or end > boundary for end in text.ends] + [True]
            tokens = [*text.tokens, self.tokenizer.eos_token_id]
            if not any(end > boundary for end in text.ends[: self.max_length]):
                what = f"its prompt alone has {sum(end <= boundary for end in text.ends)} tokens, so that"
                what += f" data.max_length = {self.max_length} cuts the completion off entirely."
                faults.add(number, what, "Raise it, or leave such rows out.", kind="cut off")
            features.append(Feature(tokens[: self.max_length], trained[: self.max_length]))
        if told := faults.told():
            raise UserError(told)
        return features


def make_instruct(recipe: Recipe, tokenizer: Any) -> Instruct:
    """The task as the recipe wants it."""
    assert recipe.data.template is not None  # the plan saw to it
    template = read_template(Path(recipe.data.template))
    return Instruct(template, tokenizer, recipe.data.max_length, recipe.data.loss_on == "full")
