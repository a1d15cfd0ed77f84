"""The loss of a token on held-out rows, and its perplexity, without training on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.evaluation.records import Record
from hpcft.train.log import perplexity
from hpcft.train.model import LossModel


@dataclass(frozen=True)
class LossTest:
    """Held-out rows or blocks, whose targets are to be foreseen."""

    features: Features
    pad: int
    passes: int = 0
    """That each process makes for some rows at least: where the model is sharded, all have to make as many."""

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each row."""
        return [int(length) for length in self.features.lengths]

    def check(self) -> None:
        """Features were checked when they were made."""

    def identity(self) -> list[Any]:
        """All that the losses depend on, the model apart."""
        return [type(self).__name__, self.features.fingerprint]

    def answer(self, model: LossModel, rows: Sequence[int], number: int) -> list[Record]:
        """The summed loss of each row; one a pass, so that the rows are told apart without a pile of logits."""
        del number
        collate, device = Collator(self.features, self.pad), next(model.parameters()).device
        found = [
            {
                "row": row,
                "loss": float(model(**model.inputs(collate([[row]]), device))),
                "targets": int(self.features.targets[row]),
            }
            for row in rows
        ]
        for _ in range(len(rows), self.passes):
            model(**model.inputs(collate([]), device))
        return found

    def report(self, records: Sequence[Record]) -> dict[str, Any]:
        """{rows, targets, loss, perplexity}; the loss is the mean over all targets, in nats."""
        targets = sum(record["targets"] for record in records)
        loss = sum(record["loss"] for record in records) / targets
        return {"rows": len(records), "targets": targets, "loss": loss, "perplexity": perplexity(loss)}
