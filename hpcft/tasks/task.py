"""The kinds of learning there are: each turns rows into features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from hpcft.data.preparation import Chunk
from hpcft.data.rows import Row
from hpcft.recipe import Recipe
from hpcft.tasks.corpus import make_corpus
from hpcft.tasks.instruct import make_instruct


class Task(Protocol):
    """Turns rows into features."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        """Features of these rows, some at a time; `done` others, and what they left waiting, came before.

        Raises UserError with the rows that cannot be used.
        """


def make_task(recipe: Recipe, tokenizer: Any) -> Task:
    """The task that the recipe names."""
    makers: dict[str, Callable[[Recipe, Any], Task]] = {"instruct": make_instruct, "corpus": make_corpus}
    return makers[recipe.task](recipe, tokenizer)
