"""Held-out rows with a label each, and what becomes of the answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcft.data.selection import Selection
from hpcft.data.source import in_source
from hpcft.errors import Fault, UserError
from hpcft.evaluation import metrics
from hpcft.evaluation.records import Record
from hpcft.template import PromptTemplate
from hpcft.textrows import Row


@dataclass(frozen=True)
class HeldOut:
    """Rows whose completion is one of the labels; how the model is asked for it, the classes below know."""

    template: PromptTemplate
    tokenizer: Any
    rows: Sequence[Row]
    choices: tuple[str, ...]
    max_length: int
    path: Path = Path("test rows")
    selection: Selection | None = None
    """Which rows of the path these are; None for all."""

    def check(self) -> None:
        """Raise UserError with the rows whose completion is none of the choices, or that lack a column."""
        faults = []
        for number, row in enumerate(self.rows, 1):
            where = f"{self.path}, row {number}"
            if missing := [column for column in self.template.columns if row.get(column) is None]:
                faults.append(Fault(where, f'has no "{missing[0]}".'))
            elif str(row[self.template.completion]) not in self.choices:
                what = f'"{row[self.template.completion]}" is none of evaluate.choices.'
                faults.append(Fault(where, what, f"Known: {', '.join(self.choices)}."))
        if faults:
            raise in_source(UserError(faults), self.path, self.selection)

    @cached_property
    def prompts(self) -> list[str]:
        """What stands before each row's completion."""
        return [self.template.render(row)[0] for row in self.rows]

    @property
    def sizes(self) -> list[int]:
        """Of each row; rows of like size are answered together."""
        return [len(prompt) for prompt in self.prompts]

    def truth(self, row: int) -> str:
        """The label that a row has."""
        return str(self.rows[row][self.template.completion])

    def identity(self) -> list[Any]:
        """All that the answers depend on, the model apart."""
        asked = [[prompt, self.truth(row)] for row, prompt in enumerate(self.prompts)]
        return [type(self).__name__, asked, self.choices, self.max_length]

    def report(self, records: Sequence[Record]) -> dict[str, Any]:
        """The measures of a full set of answers."""
        truth, answers = [record["truth"] for record in records], [record["answer"] for record in records]
        sure = [record["probabilities"] for record in records if "probabilities" in record]
        table = [[each[label] for label in self.choices] for each in sure] if len(sure) == len(records) else None
        return metrics.report(self.choices, truth, answers, table)
