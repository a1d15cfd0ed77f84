"""One step: micro-batches forward and backward, and one update of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch

from hpcft.data.batches import Batch
from hpcft.errors import Fault, UserError
from hpcft.train.optimizer import learning_rate
from hpcft.train.randomness import set_randomness
from hpcft.train.training import Training


def one_step(training: Training, batches: Iterator[Batch], step: int) -> tuple[float, int, float]:
    """Summed loss and number of targets over all processes, and the gradient's norm, after one update."""
    share, accelerator, recipe = training.share, training.accelerator, training.recipe
    # Every process knows the whole step's rows, so the denominator needs no communication.
    targets = int(training.train.targets[share.step_rows(step)].sum())
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(recipe.train, step, training.total_steps)
    loss = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for micro in range(share.accumulation):
        training.control.poll()  # in the middle of a step, its gradients so far are dropped: weights stand at the last
        batch = next(batches)
        set_randomness(recipe.train.seed, "step", share.micro_number(step, micro))
        last = micro == share.accumulation - 1
        context = accelerator.no_sync(training.wrapped) if not last else nullcontext()
        with context:
            micro_loss = training.wrapped(**{key: value.to(accelerator.device) for key, value in batch.items()})
            # DDP averages over the processes, and the loss is a mean over the step's targets.
            accelerator.backward(micro_loss * (share.ranks / max(targets, 1)))
        loss += micro_loss.detach().double()
    total = training.control.total(float(loss))
    if not math.isfinite(total):
        rows = share.step_rows(step).tolist()
        what = f"non-finite loss ({total}) at step {step + 1}, in rows {rows}."
        raise UserError(Fault(str(recipe.data.train), what, "Look at them, or lower train.learning_rate."))
    limit = recipe.train.clip_norm or math.inf
    norm = accelerator.clip_grad_norm_(training.model.parameters(), limit)
    if accelerator.scaler is None and not math.isfinite(norm):  # the fp16 scaler skips such a step by itself
        rows = share.step_rows(step).tolist()
        what = f"non-finite loss gradient (norm {norm}) at step {step + 1}, in rows {rows}."
        raise UserError(Fault(str(recipe.data.train), what, "Look at them, or lower train.learning_rate."))
    training.optimizer.step()
    training.optimizer.zero_grad()
    return total, max(targets, 1), float(norm)
