"""The test of a model with classes: the likeliest class of each held-out row is its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.evaluation import metrics
from hpcft.evaluation.records import Record
from hpcft.train.classmodel import ClassModel, PairModel


@dataclass(frozen=True)
class ClassTest:
    """Held-out rows with a class each."""

    features: Features
    labels: Sequence[str]
    pad: int

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each row."""
        return [int(length) for length in self.features.lengths]

    def check(self) -> None:
        """Features were checked when they were made."""

    def identity(self) -> list[Any]:
        """All that the answers depend on, the model apart."""
        return [type(self).__name__, self.features.fingerprint, list(self.labels)]

    def answer(self, model: ClassModel, rows: Sequence[int], number: int) -> list[Record]:
        """The likeliest class of each of these rows, and how likely each is; of two responses also the verdict where
        they are exchanged."""
        del number  # nothing is drawn
        assert self.features.labels is not None
        batch = Collator(self.features, self.pad)([[row] for row in rows])
        inputs = model.inputs(batch, next(model.parameters()).device)
        pair = isinstance(model, PairModel)
        found = model.both_orders(**inputs) if isinstance(model, PairModel) else (model.probabilities(**inputs),)
        records = []
        for row, *each in zip(rows, *(some.double().tolist() for some in found), strict=True):
            verdicts = [self.labels[max(range(len(some)), key=some.__getitem__)] for some in each]
            records.append(
                {
                    "row": row,
                    "truth": self.labels[int(self.features.labels[row])],
                    "answer": verdicts[0],
                    **({"answer_exchanged": verdicts[1]} if pair else {}),
                    "probabilities": dict(zip(self.labels, each[0], strict=True)),
                }
            )
        return records

    def report(self, records: Sequence[Record]) -> dict[str, Any]:
        """What the answers to all rows are worth: see evaluation.metrics.report.

        Of two responses `exchanged` is the share of rows whose verdict is exchanged when the responses are: what a
        model that knows nothing but the place of a response has at 0.
        """
        truth, answers = [record["truth"] for record in records], [record["answer"] for record in records]
        table = [[record["probabilities"][label] for label in self.labels] for record in records]
        found = metrics.report(self.labels, truth, answers, table)
        if records and "answer_exchanged" in records[0]:
            other = {**{label: label for label in self.labels}, self.labels[0]: self.labels[1]}
            other[self.labels[1]] = self.labels[0]
            turned = [other[record["answer"]] == record["answer_exchanged"] for record in records]
            found["exchanged"] = sum(turned) / len(turned)
        return found
