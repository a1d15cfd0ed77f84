"""Models that a run has left, in memory: its final one, its best, or that of a checkpoint."""

from __future__ import annotations

import torch

from hpcft.errors import Fault, UserError
from hpcft.rundir import RunDir
from hpcft.train import checkpoint
from hpcft.train.classmodel import PairModel, head_of
from hpcft.train.export import begun, plain_model, step_of
from hpcft.train.labels import labelled
from hpcft.train.model import LossModel, loss_model
from hpcft.train.pair import Pair


def phase_of(run: RunDir, which: str) -> int:
    """The number of the phase that such a model comes from; 0 where a run has none."""
    step = step_of(run, which)
    ends = [phase["ends"] for phase in run.phases]
    return next((number for number, end in enumerate(ends) if step <= end), max(0, len(ends) - 1))


def load_left(run: RunDir, which: str, device: torch.device) -> LossModel:
    """The model on a device, in fp32: `model`, `best`, or the step of a checkpoint, of which 0 is the start.

    Raises UserError if it does not load, or is damaged.
    """
    if which.isdigit():
        model = begun(run)
        if step := int(which):
            found = run.checkpoints / f"step-{step:08d}"
            if problem := checkpoint.damage(found):
                raise UserError(Fault(str(found), f"{problem}.", "Take another checkpoint."))
            checkpoint.load_weights(checkpoint.read(run, step), model)
    else:
        plain, recipe = plain_model(run, run.path / which), labelled(run)
        head = head_of(recipe.task, recipe.data)
        model = PairModel(plain) if isinstance(plain, Pair) else loss_model(plain, head)
    return model.to(device).eval()
