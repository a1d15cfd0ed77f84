"""What the validation rows say of a model; it never touches the training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.evaluation import metrics
from hpcft.train.classmodel import ClassModel
from hpcft.train.control import Control
from hpcft.train.model import LossModel


@dataclass(frozen=True)
class Validation:
    """What all validation rows come to."""

    loss: float
    """Mean over the targets, in nats: a token each, or a row each of a task with classes."""
    scores: dict[str, float]
    """accuracy and macro_f1 of the likeliest classes; {} where tokens are learnt."""


def validate(model: LossModel, features: Features, batch: int, pad: int, control: Control, amp: Any) -> Validation:
    """The loss of all rows, and of a task with classes what the same pass answers.

    The loss is the same for any number of processes but for rounding, and the answers are counted.

    Raises Stop on every process if the supervisor asks for it: the step it belongs to is evaluated again then.
    """
    collate = Collator(features, pad)
    # By length, so that hardly anything is padded.
    rows = np.argsort(features.lengths, kind="stable").tolist()
    groups = [[[row] for row in rows[first : first + batch]] for first in range(0, len(rows), batch)]
    device = next(model.parameters()).device
    loss, answers = 0.0, Counter[tuple[int, int]]()
    model.eval()
    try:
        for first in range(0, len(groups), control.ranks):
            control.poll()
            mine = first + control.rank
            # Who has none left does the last once more: of a sharded model a pass needs every process.
            stacked = collate(groups[min(mine, len(groups) - 1)])
            with torch.no_grad(), amp():
                found, likeliest = _pass(model, model.inputs(stacked, device))
            if mine < len(groups):
                loss += found
                answers.update(zip(stacked["labels"].tolist(), likeliest, strict=True) if likeliest else ())
    finally:
        release(model)
        model.train()
    everyone = sum(control.gather(answers), Counter[tuple[int, int]]())
    return Validation(control.total(loss) / int(features.targets.sum()), metrics.scores(everyone) if everyone else {})


def _pass(model: LossModel, inputs: dict[str, torch.Tensor]) -> tuple[float, list[int]]:
    """The summed loss of a batch, and the likeliest class of each row; [] where tokens are learnt."""
    if not isinstance(model, ClassModel):
        return float(model(**inputs)), []
    loss, likeliest = model.loss_and_answers(**inputs)
    return float(loss), likeliest.tolist()


def release(model: LossModel) -> None:
    """Let go of what a sharded model has gathered for a forward pass that no backward pass follows."""
    for module in model.modules():
        if reshard := getattr(module, "reshard", None):
            reshard()
