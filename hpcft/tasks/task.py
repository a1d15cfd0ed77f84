"""The kinds of learning there are: each turns rows into features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from hpcft.data.preparation import Chunk
from hpcft.data.rows import Row
from hpcft.recipe import Recipe
from hpcft.tasks.classify import make_classify
from hpcft.tasks.corpus import make_corpus
from hpcft.tasks.entail import make_entail
from hpcft.tasks.instruct import make_instruct
from hpcft.tasks.prefer import make_prefer


class Task(Protocol):
    """Turns rows into features."""

    def chunks(self, rows: Iterable[Row], path: Path, done: int = 0) -> Iterator[Chunk]:
        """Features of these rows, some at a time; `done` others, and what they left waiting, came before.

        Raises UserError with the rows that cannot be used.
        """


MAKERS: dict[str, Callable[[Recipe, Any], Task]] = {
    "instruct": make_instruct,
    "corpus": make_corpus,
    "classify": make_classify,
    "entail": make_entail,
    "prefer": make_prefer,
}
"""By the name that a recipe calls it."""


def make_task(recipe: Recipe, tokenizer: Any) -> Task:
    """The task that the recipe names."""
    return MAKERS[recipe.task](recipe, tokenizer)
