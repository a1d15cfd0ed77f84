"""The training loop: steps, evaluation and checkpoints, until the last step or the flag that says stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from hpcft.curves.writer import CurveWriter
from hpcft.data.batches import Batch, Collator, training_loader
from hpcft.train.control import Stop
from hpcft.train.evaluate import validate
from hpcft.train.final import finish
from hpcft.train.log import Log
from hpcft.train.phases import record_phases
from hpcft.train.saving import Saver
from hpcft.train.step import StepResult, one_step
from hpcft.train.testing import UNTUNED, again, draw_stages, examine, make_test
from hpcft.train.training import Position, Training

PHASE_OVER = "phase over"


def train(training: Training) -> str:
    """`finished`, `stopped` with everything saved, or PHASE_OVER: the next one can be set up."""
    progress = training.progress
    curve = CurveWriter(training.job.curve) if training.control.rank == 0 else None
    saver = Saver(training, curve)
    log = Log(training, curve)
    progress.lap("disk")
    progress.say(
        resume_step=training.position.step,
        total_steps=training.total_steps,
        validation_steps=validation_steps(training),
    )
    try:
        measure(training, log, UNTUNED)
        evaluate_if_due(training, log)
        run_steps(training, log, saver)
        measure(training, log, "after")
        saver.last()
    except Stop:
        saver.last()
        return "stopped"
    finally:
        saver.close()
        if curve:
            curve.close()
    if not training.span.last:
        end_phase(training)
        return PHASE_OVER
    with progress.phase("finish"):
        finish(training)
    return "finished"


def validation_steps(training: Training) -> float:
    """The validation rows, in steps with as many tokens: by that their first evaluation is foreseen."""
    if training.validation is None:
        return 0.0
    train = training.recipe.train
    step = train.batch_tokens or (train.batch_size or 0) * float(training.train.lengths.mean())
    return float(training.validation.lengths.sum()) / step


def run_steps(training: Training, log: Log, saver: Saver) -> None:
    """Every step that is left, each followed by what is due at it. Raises Stop; the position is then a boundary."""
    position, progress = training.position, training.progress
    batches = log.batches(micro_batches(training))
    for step in range(position.step, training.span.ends):
        progress.note(phase="train")
        started = time.monotonic()
        result = one_step(training, batches, step)
        seconds = time.monotonic() - started
        count_step(position, result)
        progress.spent("train", seconds)
        progress.start.setdefault("first step", seconds)
        progress.facts.setdefault("first_step", position.step)
        log.step(result, seconds)
        evaluate_if_due(training, log)
        saver.after_step()


def count_step(position: Position, result: StepResult) -> None:
    """Move the position behind a step that is done."""
    position.step += 1
    position.tokens += result.targets
    if math.isfinite(result.loss):  # else the update was left out, and said
        position.window_loss += result.loss
        position.window_targets += result.targets


def micro_batches(training: Training) -> Iterator[Batch]:
    """This process's micro-batches from the step where training is."""
    first, end = training.position.step, training.span.ends
    workers = training.recipe.data.workers
    collate = Collator(training.train, training.pad)
    return iter(training_loader(collate, training.share, first, end, workers))


def evaluate_if_due(training: Training, log: Log) -> None:
    """The validation, at step 0, every so many steps and where a phase ends; once for each step. Raises Stop."""
    position, every = training.position, training.recipe.evaluate.every
    due = position.step == training.span.ends or (every and position.step % every == 0)
    if training.validation is None or not due or position.evaluated == position.step:
        return
    batch = training.recipe.evaluate.batch_size
    started = time.monotonic()
    with training.progress.phase("evaluate"):
        found = validate(training.model, training.validation, batch, training.pad, training.control, training.amp)
    loss = found.loss
    position.evaluated = position.step
    if position.step and math.isfinite(loss) and (position.best is None or loss < position.best):
        position.best, position.best_step = loss, position.step
    training.progress.note(validation_loss=loss, validation_accuracy=found.accuracy)
    log.validation(found, time.monotonic() - started)


def measure(training: Training, log: Log, when: str) -> None:
    """What the model makes of the held-out rows, `before` training and `after`. Raises Stop; what was answered until
    then is known to the next job.

    After a phase it is called like that, and after the last one `after` too.
    """
    if when == UNTUNED and training.position.step > 0:
        return
    run, span = training.run, training.span
    below = run.recipe.features_folder(span.number)
    test = make_test(run, training.recipe, training.tokenizer, training.control, below=below)
    if test is None:
        return
    name = when if when == UNTUNED else span.name or when
    facts = {"step": training.position.step, "split": "test", "stage": True}
    with training.progress.phase("test"):
        out, batch = run.evaluation / f"{name}.json", training.recipe.evaluate.batch_size
        report = examine(test, training.model, out, batch, training.control, training.amp, facts)
    if training.control.rank == 0:
        draw_stages(run.evaluation)
        if name != when and span.last:
            again(out, when)
    log.tested(report)


def end_phase(training: Training) -> None:
    """Write down that this phase is over, whose last checkpoint is on disk: all that comes belongs to the next."""
    span, control = training.span, training.control
    if control.rank == 0:
        print(f"hpcft: phase {span.name} is over at step {span.ends} of {training.total_steps}", flush=True)
        record_phases(training.run, training.spans, over=span.name)
    training.progress.next_phase(span.ends)
    control.wait()
