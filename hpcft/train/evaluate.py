"""The validation, which never touches the training: its loss, and the accuracy where rows have a class each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.train.classmodel import ClassModel
from hpcft.train.control import Control
from hpcft.train.model import LossModel


@dataclass(frozen=True)
class Validation:
    """What a model makes of all validation rows."""

    loss: float
    """Mean over the targets, in nats; the same for any number of processes but for rounding."""
    accuracy: float | None = None
    """Share of the rows whose likeliest class is their own; None where rows have no class."""


def validate(model: LossModel, features: Features, batch: int, pad: int, control: Control, amp: Any) -> Validation:
    """Loss and accuracy over all rows, which the processes share.

    Raises Stop on every process if the supervisor asks for it: the step it belongs to is evaluated again then.
    """
    collate = Collator(features, pad)
    # By length, so that hardly anything is padded.
    rows = np.argsort(features.lengths, kind="stable").tolist()
    groups = [[[row] for row in rows[first : first + batch]] for first in range(0, len(rows), batch)]
    device = next(model.parameters()).device
    loss, right = 0.0, 0
    model.eval()
    try:
        for first in range(0, len(groups), control.ranks):
            control.poll()
            mine = first + control.rank
            # Who has none left does the last once more: of a sharded model a pass needs every process.
            stacked = collate(groups[min(mine, len(groups) - 1)])
            with torch.no_grad(), amp():
                here = _look(model, model.inputs(stacked, device))
            if mine < len(groups):
                loss, right = loss + here[0], right + here[1]
    finally:
        release(model)
        model.train()
    targets = int(features.targets.sum())
    accuracy = control.total(right) / targets if isinstance(model, ClassModel) else None
    return Validation(control.total(loss) / targets, accuracy)


def _look(model: LossModel, inputs: Mapping[str, Any]) -> tuple[float, int]:
    """The summed loss of a batch, and of how many rows the class was right."""
    if not isinstance(model, ClassModel):
        return float(model(**inputs)), 0
    loss, right = model.loss_and_right(**inputs)
    return float(loss), int(right)


def release(model: LossModel) -> None:
    """Let go of what a sharded model has gathered for a forward pass that no backward pass follows."""
    for module in model.modules():
        if reshard := getattr(module, "reshard", None):
            reshard()
