"""One step: micro-batches forward and backward, and one update of the weights, unless a number went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from hpcft.data.batches import Batch
from hpcft.data.randomness import set_randomness
from hpcft.errors import Fault, UserError
from hpcft.train.training import Training

MOST_IN_A_ROW = 20
"""Updates left out one after the other that end a run: what is wrong then is not a row."""


@dataclass(frozen=True)
class StepResult:
    """What a step came to, over all processes."""

    loss: float
    """Summed over the targets."""
    targets: int
    norm: float
    """Of the gradient, before clipping."""
    updated: bool
    """Whether the weights have changed."""
    scale: float | None = None
    """What the fp16 loss was multiplied by."""


def one_step(training: Training, batches: Iterator[Batch], step: int) -> StepResult:
    """The result of one update. Raises Stop: nothing has changed; UserError: numbers that are none."""
    share, accelerator, recipe = training.share, training.accelerator, training.recipe
    # Every process knows the whole step's rows, so the denominator needs no communication.
    targets = int(training.train.targets[share.step_rows(step)].sum())
    for group in training.optimizer.param_groups:
        group["lr"] = training.learning_rate(step)
    loss = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    passes = share.passes(step)
    for micro in range(passes):
        training.control.poll()  # in the middle of a step, its gradients so far are dropped: weights stand at the last
        inputs = training.model.inputs(next(batches), accelerator.device)
        set_randomness(recipe.train.seed, "step", share.micro_number(step, micro))
        last = micro == passes - 1
        # Gradients that are sharded are so after each micro-batch: whole ones would be what sharding is to save.
        waits = not last and recipe.train.sharding == "none"
        with accelerator.no_sync(training.wrapped) if waits else nullcontext():
            micro_loss = training.wrapped(**inputs)
            # DDP averages over the processes, and the loss is a mean over the step's targets.
            accelerator.backward(micro_loss * (share.ranks / max(targets, 1)))
        loss += micro_loss.detach().double()
    total = training.control.total(float(loss))  # waits for the GPU, so that the next line need not
    scale = accelerator.scaler.get_scale() if accelerator.scaler is not None else None
    norm = float(accelerator.clip_grad_norm_(training.model.parameters(), recipe.train.clip_norm or math.inf))
    updated = update(training, step, total, norm)
    training.optimizer.zero_grad()
    return StepResult(total, max(targets, 1), norm, updated, scale)


def update(training: Training, step: int, loss: float, norm: float) -> bool:
    """Whether the weights were changed by what the micro-batches of this step have left in the gradient.

    A loss or gradient that is no number never reaches the weights. With fp16 an overflowing gradient alone is no fault:
    the scaler leaves the update out and halves its scale.
    """
    scaler, position = training.accelerator.scaler, training.position
    if not math.isfinite(loss) or (scaler is None and not math.isfinite(norm)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        if training.recipe.train.on_nonfinite == "stop":
            raise _fault(training, step, f"{what} at step {step + 1}")
        updated, why = False, what
        if scaler is not None:
            scaler.update()  # clipping has unscaled this gradient, and the next one needs a fresh start
    else:
        training.before_update()
        training.optimizer.step()
        updated, why = not training.accelerator.optimizer_step_was_skipped, "the gradient overflows in fp16"
    position.left_out_in_a_row = 0 if updated else position.left_out_in_a_row + 1
    position.left_out += not updated
    if not updated and training.control.rank == 0:
        scale = "" if scaler is None else f", loss scale {scaler.get_scale():g}"
        print(f"hpcft: step {step + 1} changed no weight: {why}; rows {_rows(training, step)}{scale}", flush=True)
    if position.left_out_in_a_row >= MOST_IN_A_ROW:
        raise _fault(training, step, f"{MOST_IN_A_ROW} steps in a row changed no weight, the last is {step + 1}: {why}")
    return updated


def _fault(training: Training, step: int, what: str) -> UserError:
    fix = "Look at them, lower train.learning_rate, or write train.on_nonfinite: skip."
    if training.recipe.train.precision == "fp16":
        fix += " Models made in bf16 often overflow in fp16: fp32 is safe."
    where = str(training.recipe.data.train)
    return UserError(Fault(where, f"non-finite numbers: {what}, in rows {_rows(training, step)}.", fix))


def _rows(training: Training, step: int) -> list[int]:
    """Numbers of the step's rows, counted from 1 as in messages about a file."""
    return sorted(int(row) + 1 for row in training.share.step_rows(step))
