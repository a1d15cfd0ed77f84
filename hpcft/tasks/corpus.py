"""Plain text: documents, each closed by the end-of-text token, cut into blocks that belong to one of them."""

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
    """Tokens of a block; the last one of a document may be shorter."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Blocks in the order of the documents. Raises UserError: a text missing or empty.

        Documents [1, 2] and [3, 4, 5, 6] with end 0 and block 3 make [1, 2, 0], [3, 4, 5] and [6, 0]. No block has two
        documents in it, since one would be learnt from the other; `grouping: packed` puts short ones into one line. A
        last token that would be a block by itself is left out: it has nothing to be predicted from.
        """
        for some in in_chunks(iter(rows), CHUNK):
            texts, faults = [], RowFaults(path)
            for number, row in enumerate(some, done + 1):
                if wrong := cell_fault(row, self.column, filled=True):
                    faults.add(number, wrong, LEAVE_OUT if wrong.endswith("empty.") else "")
                else:
                    texts.append(str(row[self.column]))
            if told := faults.told():
                raise UserError(told)
            done += len(some)
            yield Chunk(
                [block for text in tokenize(self.tokenizer, texts) for block in self._blocks(text.tokens)], done
            )

    def _blocks(self, text: Sequence[int]) -> Iterator[Feature]:
        """Of one document."""
        tokens = [*text, self.tokenizer.eos_token_id]
        for first in range(0, len(tokens) - 1, self.block):
            block = tokens[first : first + self.block]
            yield Feature(block, [True] * len(block))


def make_corpus(recipe: Recipe, tokenizer: Any) -> Corpus:
    """The task as the recipe wants it."""
    return Corpus("text", tokenizer, recipe.data.max_length)
