"""The training loop: steps, evaluation and checkpoints, until the last step or the flag that says stop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch

from hpcft.curves.writer import CurveWriter
from hpcft.data.batches import Batch, training_loader
from hpcft.errors import Fault, UserError
from hpcft.recipe import Train
from hpcft.rundir import sync_files, sync_folder, write_json
from hpcft.train import checkpoint
from hpcft.train.control import Stop
from hpcft.train.evaluate import choice_test, choose, validation_loss
from hpcft.train.randomness import set_randomness
from hpcft.train.setup import Training, fingerprint, measure_save


def learning_rate(train: Train, step: int, total: int) -> float:
    """The rate of step number `step`, from 0: linearly up over the warm-up, then linearly down to zero at `total`."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    return train.learning_rate * (total - step) / max(1, total - train.warmup_steps)


def train(training: Training) -> str:
    """`finished`, or `stopped` with everything saved."""
    progress, position = training.progress, training.position
    curve = CurveWriter(training.job.curve) if training.control.rank == 0 else None
    progress.say(
        resume_step=position.step,
        total_steps=training.total_steps,
        save_seconds=measure_save(training) if curve else 0.0,
    )
    try:
        test_choices(training, "before")
        evaluate_if_due(training, curve)
        run_steps(training, curve)
        test_choices(training, "after")
    except Stop:
        # A run that has not made a step has nothing to save: the next job begins as this one did.
        if position.step and newest_saved(training) != (position.step, position.evaluated):
            save(training, curve)
        return "stopped"
    finally:
        if curve:
            curve.close()
    finish(training)
    return "finished"


def run_steps(training: Training, curve: CurveWriter | None) -> None:
    """Every step that is left, each followed by what is due at it. Raises Stop; the position is then a boundary."""
    recipe, position, progress = training.recipe, training.position, training.progress
    batches = micro_batches(training)
    for step in range(position.step, training.total_steps):
        progress.note(phase="train")
        started = time.monotonic()
        loss, targets, norm = one_step(training, batches, step)
        seconds = time.monotonic() - started
        position.step = step + 1
        position.tokens += targets
        position.window_loss += loss
        position.window_targets += targets
        progress.spent("train", seconds)
        progress.facts.setdefault("first_step", position.step)
        rate = targets / seconds
        progress.note(last_step=position.step, loss=loss / targets, tokens_per_second=rate)
        progress.print_line(position.step, training.total_steps)
        log(training, curve, norm, rate)
        evaluate_if_due(training, curve)
        last = position.step == training.total_steps
        if last or position.step % recipe.train.save_every == 0:
            save(training, curve)


def micro_batches(training: Training) -> Iterator[Batch]:
    """This process's micro-batches from the step where training is."""
    first, total = training.position.step, training.total_steps
    workers = training.recipe.data.workers
    return iter(training_loader(training.train, training.share, first, total, training.pad, workers))


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


def log(training: Training, curve: CurveWriter | None, norm: float, rate: float) -> None:
    """A point of the training curve, where one is due; the window is the same whatever cut the run."""
    position, recipe = training.position, training.recipe
    step = position.step
    if step % recipe.train.log_every and step != training.total_steps:
        return
    if curve:
        curve.scalar("train/loss", position.window_loss / position.window_targets, step)
        curve.scalar("train/learning_rate", learning_rate(recipe.train, step - 1, training.total_steps), step)
        curve.scalar("train/gradient_norm", norm, step)
        curve.scalar("train/tokens_per_second", rate, step)
    position.window_loss, position.window_targets = 0.0, 0


def evaluate_if_due(training: Training, curve: CurveWriter | None) -> None:
    """The validation loss, at step 0, every so many steps and at the end; once for each step. Raises Stop."""
    position, every = training.position, training.recipe.evaluate.every
    due = position.step == training.total_steps or (every and position.step % every == 0)
    if training.validation is None or not due or position.evaluated == position.step:
        return
    batch = training.recipe.evaluate.batch_size
    with training.progress.phase("evaluate"):
        loss = validation_loss(training.model, training.validation, batch, training.pad, training.control, training.amp)
    position.evaluated = position.step
    training.progress.note(validation_loss=loss)
    if curve:
        curve.scalar("validation/loss", loss, position.step)


def test_choices(training: Training, when: str) -> None:
    """Accuracy on held-out rows, `before` training and `after`; each once in the life of a run. Raises Stop."""
    test = choice_test(training.recipe, training.tokenizer)
    if test is None or (when == "before" and training.position.step > 0):
        return
    out = training.run.evaluation / f"{when}.json"
    with training.progress.phase("evaluate"):
        batch = training.recipe.evaluate.batch_size
        choose(test, training.model, out, batch, training.pad, training.control, training.amp)


def newest_saved(training: Training) -> tuple[int, int]:
    """(step, evaluated) of the newest checkpoint, as rank 0 sees it."""
    newest, evaluated = -1, -2
    if training.control.rank == 0 and (steps := training.run.saved_steps()):
        newest = steps[-1]
        evaluated = checkpoint.read(training.run, newest).state["position"]["evaluated"]
    return training.control.share(newest), training.control.share(evaluated)


def save(training: Training, curve: CurveWriter | None) -> None:
    """Write a checkpoint; the curve first, so that what a resume keeps is on disk too."""
    if training.control.rank == 0:
        if curve:
            curve.flush(sync=True)
        started = time.monotonic()
        with training.progress.phase("save"):
            scaler = training.accelerator.scaler
            state = {
                "step": training.position.step,
                "position": asdict(training.position),
                "fingerprint": fingerprint(training),
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            tensors = {
                "model": checkpoint.model_tensors(training.model),
                "optimizer": checkpoint.optimizer_tensors(training.model, training.optimizer.optimizer),
            }
            checkpoint.save(training.run, state, tensors, training.recipe.train.keep_checkpoints)
        training.progress.say(save_seconds=time.monotonic() - started, saved_step=training.position.step)
    training.control.wait()
    training.control.forget_look()


def finish(training: Training) -> None:
    """Write the final model and, last of all, the mark that the run is finished."""
    if training.control.rank == 0:
        final = training.run.final_model
        writing = final.with_name(".writing-model")
        shutil.rmtree(writing, ignore_errors=True)
        training.model.model.save_pretrained(writing)
        training.tokenizer.save_pretrained(writing)
        shutil.rmtree(final, ignore_errors=True)  # of a job that was killed between this and finished.json
        sync_files(writing)
        writing.rename(final)
        sync_folder(final.parent)
        facts: dict[str, Any] = {"step": training.position.step, "tokens": training.position.tokens}
        write_json(training.run.path / "finished.json", {**facts, "time": time.time(), "job": training.job.number})
    training.control.wait()
