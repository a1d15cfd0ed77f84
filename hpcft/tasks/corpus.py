"""Plain text: documents one behind the other, each closed by the end-of-text token, cut into blocks."""

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

LEAVE_OUT = "Leave such rows out: `filter: {empty: drop}` in data."


@dataclass(frozen=True)
class Corpus:
    """What this task needs to make features of documents."""

    column: str
    tokenizer: Any
    block: int
    """Tokens of a block; the last one may be shorter."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        """Blocks in the order of the documents, every token in one of them. Raises UserError: a text missing or empty.

        Documents [1, 2] and [3, 4, 5] with end 0 and block 4 make [1, 2, 0, 3] and [4, 5, 0].
        """
        rest = list(carry)
        for some in in_chunks(iter(rows), CHUNK):
            texts, faults = [], RowFaults(path)
            for number, row in enumerate(some, done + 1):
                if wrong := cell_fault(row, self.column, filled=True):
                    faults.add(number, wrong, LEAVE_OUT if wrong.endswith("empty.") else "")
                else:
                    texts.append(str(row[self.column]))
            if told := faults.told():
                raise UserError(told)
            for text in tokenize(self.tokenizer, texts):
                rest += [*text.tokens, self.tokenizer.eos_token_id]
            whole = len(rest) // self.block * self.block
            blocks = [self._block(rest[first : first + self.block]) for first in range(0, whole, self.block)]
            rest = rest[whole:]
            done += len(some)
            yield Chunk(blocks, done, rest)
        if len(rest) > 1:  # a single token has nothing to be predicted from
            yield Chunk([self._block(rest)], done)

    def _block(self, tokens: list[int]) -> Feature:
        return Feature(tokens, [True] * len(tokens))


def make_corpus(recipe: Recipe, tokenizer: Any) -> Corpus:
    """The task as the recipe wants it."""
    return Corpus("text", tokenizer, recipe.data.max_length)
