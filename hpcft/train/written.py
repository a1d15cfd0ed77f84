"""The label in what a model writes: its completion of each prompt, and which of the labels that names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcft.data.randomness import key
from hpcft.evaluation.generation import complete, make_config, prompt_tokens, room
from hpcft.evaluation.labels import parse_label
from hpcft.evaluation.records import Record
from hpcft.sections import Generate
from hpcft.train.heldout import HeldOut
from hpcft.train.model import LossModel, padding_token


@dataclass(frozen=True)
class WrittenTest(HeldOut):
    """Held-out rows, to which the model writes its answers."""

    generate: Generate = field(default_factory=Generate)
    together: bool = False
    """Every process answers at the same time, since the model is sharded among them."""

    def identity(self) -> list[Any]:
        return [*super().identity(), self.generate.model_dump()]

    def answer(self, model: LossModel, rows: Sequence[int], number: int) -> list[Record]:
        """What is written for each of these rows, batch `number` of all, and the label that it names."""
        config = make_config(model.inner, self.tokenizer, self.generate, padding_token(self.tokenizer))
        most = min(self.max_length, room(model.inner, self.generate) or self.max_length)
        prompts = prompt_tokens(self.tokenizer, [self.prompts[row] for row in rows], self.choices)
        # At the front: the prompt's end, behind which the answer belongs, must stay.
        shown = [prompt[max(0, len(prompt) - most) :] for prompt in prompts]
        seed, device = key(self.generate.seed, "generate", number), next(model.parameters()).device
        written = complete(model.generate, device, config, shown, seed, synced_gpus=self.together)
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            {
                "row": row,
                "truth": self.truth(row),
                "answer": parse_label(text, self.choices),
                "text": text,
                "prompt_tokens_cut": len(prompt) - len(kept),
            }
            for row, text, prompt, kept in zip(rows, texts, prompts, shown, strict=True)
        ]

    def report(self, records: Sequence[Record]) -> dict[str, Any]:
        """The measures of a full set of answers, and how many prompts were too long."""
        cut = sum(record["prompt_tokens_cut"] > 0 for record in records)
        return {**super().report(records), "prompts_cut": cut, "generate": self.generate.model_dump()}
