"""The validation loss, which never touches the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.train.control import Control
from hpcft.train.model import LossModel


def validation_loss(model: LossModel, features: Features, batch: int, pad: int, control: Control, amp: Any) -> float:
    """Mean loss of a token over all rows, in nats; the same for any number of processes but for rounding.

    Raises Stop on every process if the supervisor asks for it: the step it belongs to is evaluated again then.
    """
    collate = Collator(features, pad)
    # By length, so that hardly anything is padded.
    rows = np.argsort(features.lengths, kind="stable").tolist()
    groups = [[[row] for row in rows[first : first + batch]] for first in range(0, len(rows), batch)]
    device = next(model.parameters()).device
    loss = 0.0
    model.eval()
    try:
        for first in range(0, len(groups), control.ranks):
            control.poll()
            mine = first + control.rank
            # Who has none left does the last once more: of a sharded model a pass needs every process.
            stacked = collate(groups[min(mine, len(groups) - 1)])
            with torch.no_grad(), amp():
                found = float(model(**model.inputs(stacked, device)))
            loss += found if mine < len(groups) else 0.0
    finally:
        release(model)
        model.train()
    return control.total(loss) / int(features.targets.sum())


def release(model: LossModel) -> None:
    """Let go of what a sharded model has gathered for a forward pass that no backward pass follows."""
    for module in model.modules():
        if reshard := getattr(module, "reshard", None):
            reshard()
