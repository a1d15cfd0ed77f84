"""The training loop: steps, evaluation and checkpoints, until the last step or the flag that says stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from hpcft.curves.writer import CurveWriter
from hpcft.data.batches import Batch, training_loader
from hpcft.train.control import Stop
from hpcft.train.evaluate import choice_test, choose, validation_loss
from hpcft.train.optimizer import learning_rate
from hpcft.train.saving import Saver, finish
from hpcft.train.step import one_step
from hpcft.train.training import Training


def train(training: Training) -> str:
    """`finished`, or `stopped` with everything saved."""
    progress = training.progress
    curve = CurveWriter(training.job.curve) if training.control.rank == 0 else None
    saver = Saver(training, curve)
    progress.say(resume_step=training.position.step, total_steps=training.total_steps)
    try:
        test_choices(training, "before")
        evaluate_if_due(training, curve)
        run_steps(training, curve, saver)
        test_choices(training, "after")
        saver.last()
    except Stop:
        saver.last()
        return "stopped"
    finally:
        saver.close()
        if curve:
            curve.close()
    finish(training)
    return "finished"


def run_steps(training: Training, curve: CurveWriter | None, saver: Saver) -> None:
    """Every step that is left, each followed by what is due at it. Raises Stop; the position is then a boundary."""
    position, progress = training.position, training.progress
    batches = micro_batches(training)
    for step in range(position.step, training.total_steps):
        progress.note(phase="train")
        started = time.monotonic()
        result = one_step(training, batches, step)
        seconds = time.monotonic() - started
        position.step = step + 1
        position.tokens += result.targets
        if math.isfinite(result.loss):  # else the update was left out, and said
            position.window_loss += result.loss
            position.window_targets += result.targets
        progress.spent("train", seconds)
        progress.facts.setdefault("first_step", position.step)
        rate = result.targets / seconds
        loss = result.loss / result.targets
        progress.note(last_step=position.step, loss=loss, tokens_per_second=rate, left_out=position.left_out)
        progress.print_line(position.step, training.total_steps)
        log(training, curve, result.norm, rate)
        evaluate_if_due(training, curve)
        saver.after_step()


def micro_batches(training: Training) -> Iterator[Batch]:
    """This process's micro-batches from the step where training is."""
    first, total = training.position.step, training.total_steps
    workers = training.recipe.data.workers
    return iter(training_loader(training.train, training.share, first, total, training.pad, workers))


def log(training: Training, curve: CurveWriter | None, norm: float, rate: float) -> None:
    """A point of the training curve, where one is due; the window is the same whatever cut the run."""
    position, recipe = training.position, training.recipe
    step = position.step
    if step % recipe.train.log_every and step != training.total_steps:
        return
    if curve:
        if position.window_targets:
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
