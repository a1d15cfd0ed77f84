"""Trainings that save in each turn: `python -m tests.benchmarks.savers SIDE RUN`.

A turn is one step and then a checkpoint; its answer is the seconds for which training stood still, and those until the
checkpoint was there for a next job.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hpcft.rundir import RunDir
from hpcft.train.loop import micro_batches
from hpcft.train.saving import Saver
from hpcft.train.setup import set_up
from hpcft.train.step import one_step
from tests.benchmarks.turns import Turns

STEPS = 1000
"""More than are made: none is the last."""


def main(side: str, run_path: str) -> None:
    """Step and save until nobody asks any more."""
    sides: dict[str, Callable[[RunDir, Turns], None]] = {
        "hpcft": hpcft,
        "accelerate": accelerate,
        "trainer": trainer,
    }
    sides[side](RunDir(Path(run_path)), Turns())


def hpcft(run: RunDir, turns: Turns) -> None:
    """hpcft's own saver, told to save at every step; two checkpoints are kept, which is the default."""
    scratch = run.path / f"scratch-{os.getpid()}"
    scratch.mkdir()
    training = set_up(run, run.job(1), scratch)
    batches, saver = micro_batches(training), Saver(training, None)
    turns.say()
    for step in range(STEPS):
        turns.wait()
        one_step(training, batches, step)
        training.position.step = step + 1
        began = time.perf_counter()
        saver.after_step()
        stall = time.perf_counter() - began
        while saver.writer.busy:
            time.sleep(0.002)
        turns.say(stall=stall, whole=time.perf_counter() - began)


def accelerate(run: RunDir, turns: Turns) -> None:
    """accelerate's save_state, as its documentation shows it."""
    accelerator = Accelerator(cpu=True)
    model = AutoModelForCausalLM.from_pretrained(run.recipe.model.path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    turns.say()
    for step in range(STEPS):
        turns.wait()
        tokens = torch.randint(1, 500, (1, 16))
        accelerator.backward(model(input_ids=tokens, labels=tokens).loss)
        optimizer.step()
        optimizer.zero_grad()
        began = time.perf_counter()
        accelerator.save_state(str(run.path / f"accelerate/step-{step % 2}"))
        stall = time.perf_counter() - began
        turns.say(stall=stall, whole=stall)


class _Saving(transformers.TrainerCallback):
    """Saves at every step, and tells what it took."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.say()
        self.turns.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_save(self, *_: Any, **__: Any) -> None:
        stall = time.perf_counter() - self.began
        self.turns.say(stall=stall, whole=stall)
        self.turns.wait()


def trainer(run: RunDir, turns: Turns) -> None:
    """A Trainer with save_steps=1, of which it keeps two."""
    model = AutoModelForCausalLM.from_pretrained(run.recipe.model.path, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(run.path / "trainer"),
        use_cpu=True,
        max_steps=STEPS,
        per_device_train_batch_size=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"input_ids": list(range(1, 17)), "labels": list(range(1, 17))}] * STEPS
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[_Saving(turns)]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
