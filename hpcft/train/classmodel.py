"""Models with a head of classes: one verdict on each row, in place of a target at each token."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from hpcft.data.batches import NO_CLASS, Batch
from hpcft.errors import Fault, UserError
from hpcft.recipe import TASKS, VERDICTS, Recipe
from hpcft.sections import Data
from hpcft.train.model import LANGUAGE, Head, LossModel, padding_token, write_whole
from hpcft.train.pair import Pair


class ClassModel(LossModel):
    """A model whose forward gives the summed loss of its rows, each of which is one target.

    An encoder's own head reads what that family's does. A decoder's reads the last token of the row, wherever it
    stands: transformers would look for the last one that is no padding token, and a GPT-2 has none.
    """

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.needs_mask = True
        self.projects_exactly = False
        self.write = partial(write_whole, model)
        self.reads_last = hasattr(self.inner, "score")
        self.knows_segments = not self.reads_last and getattr(self.inner.config, "type_vocab_size", 0) > 1

    def inputs(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:  # type: ignore[override]
        """What forward takes, on the device, from a batch on the CPU: see Collator."""
        names = ["tokens", "mask", "labels", *["segments"] * self.knows_segments]
        return {name: batch[name].to(device, non_blocking=True) for name in names if name in batch}

    def forward(  # type: ignore[override]
        self, tokens: Tensor, mask: Tensor, labels: Tensor, segments: Tensor | None = None
    ) -> Tensor:
        """Scalar: cross-entropy in fp32, summed over the rows of this micro-batch."""
        return summed_loss(self.scores(tokens, mask, segments), labels)

    def loss_and_answers(
        self, tokens: Tensor, mask: Tensor, labels: Tensor, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What forward gives, and (rows,) the likeliest class of each row, of one pass."""
        scores = self.scores(tokens, mask, segments)
        return summed_loss(scores, labels), scores.argmax(dim=-1)

    def scores(self, tokens: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """(rows, classes): what the head says of each row, before the softmax."""
        given = {"token_type_ids": segments} if segments is not None else {}
        if not self.reads_last:
            found: Tensor = self.inner(input_ids=tokens, attention_mask=mask, **given).logits
            return found
        hidden = self.inner.base_model(input_ids=tokens, attention_mask=mask, use_cache=False)[0]
        head: Tensor = self.inner.score(last_hidden(hidden, mask))
        return head

    def probabilities(
        self, tokens: Tensor, mask: Tensor, labels: Tensor | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """(rows, classes), in fp32; takes what forward does."""
        return self.scores(tokens, mask, segments).float().softmax(dim=-1)

    def example(self, rows: int, length: int, pad: int) -> Batch:
        """A batch of so many rows of padding that are seen, all of class 0."""
        made = {name: torch.full((rows, length), value) for name, value in (("tokens", pad), ("mask", 1))}
        return {**made, "labels": torch.zeros(rows, dtype=torch.long)}


class PairModel(ClassModel):
    """The same of rows with two texts that are read apart: of a batch, the first half of the texts and the second."""

    def __init__(self, model: Pair) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.needs_mask = True
        self.projects_exactly = False
        self.write = partial(write_whole, model)
        self.knows_segments = getattr(model.config, "type_vocab_size", 0) > 1

    def scores(self, tokens: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """(rows, classes), of (2 rows, T) tokens."""
        first, second = self.model.read(tokens, mask, segments).chunk(2)
        verdict: Tensor = self.model.compare(first, second)
        return verdict

    def both_orders(
        self, tokens: Tensor, mask: Tensor, labels: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(rows, classes) twice: of the responses as they stand, and with the two exchanged."""
        first, second = self.model.read(tokens, mask, segments).chunk(2)
        there, back = self.model.compare(first, second), self.model.compare(second, first)
        return there.float().softmax(dim=-1), back.float().softmax(dim=-1)

    def example(self, rows: int, length: int, pad: int) -> Batch:
        """A batch of so many rows of padding that are seen, all of class 0."""
        return {**super().example(2 * rows, length, pad), "labels": torch.zeros(rows, dtype=torch.long)}


def summed_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Scalar: cross-entropy in fp32 of (rows, classes), summed over the rows that have a class."""
    return F.cross_entropy(scores.float(), labels, reduction="sum", ignore_index=NO_CLASS)


def last_hidden(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, width): of (B, T, width) what stands at the last token of each row that is no padding on the right.

    By the mask, and not by the token: one that is used for padding may also stand in a row, as a separator.
    """
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]


def head_of(task: str, data: Data) -> Head:
    """What the model of a recipe is loaded as: for tokens, for classes, or for two texts read apart.

    Before the first job has looked for the classes, whose number hardly matters then, they are two.
    """
    if not TASKS[task].classes:
        return LANGUAGE
    labels = data.labels or (VERDICTS if task == "prefer" else ("0", "1"))
    settings = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if task != "prefer":
        return Head(AutoModelForSequenceClassification, settings, ClassModel, "SEQ_CLS")

    def paired(loaded: Any) -> LossModel:
        return PairModel(Pair.around(loaded, labels, data.pair, data.max_length))

    return Head(AutoModelForSequenceClassification, settings, paired)


def set_padding(recipe: Recipe, model: LossModel, tokenizer: Any) -> None:
    """Let the model of classes and its tokenizer name a padding token, so that others than hpcft can use them.

    Only after the model is made: where transformers knows that token before, it never learns.
    """
    if recipe.has_classes:
        pad = padding_token(tokenizer)
        model.inner.config.pad_token_id = pad
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = pad


def check_kind(recipe: Recipe, config: Any) -> None:
    """Raise UserError for a model of two halves (T5, BART): its head of classes wants another form of rows."""
    if recipe.has_classes and getattr(config, "is_encoder_decoder", False):
        what = f"{recipe.model.path} is an encoder with a decoder, which the task {recipe.task} cannot train."
        raise UserError(Fault("recipe", what, "Take an encoder (BERT, DeBERTa) or a decoder (GPT-2, Llama)."))
