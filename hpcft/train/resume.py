"""Going on: the newest sound checkpoint, loaded, and in words how exactly training continues from it."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers

from hpcft.disk import write_json
from hpcft.errors import Fault, UserError
from hpcft.train import checkpoint
from hpcft.train.blocks import Damaged
from hpcft.train.checkpoint import Checkpoint
from hpcft.train.phases import Span, phase_after, stored_phase
from hpcft.train.training import Position, Training


def resume(training: Training) -> bool:
    """Load the newest sound checkpoint, if there is one, and write down where training goes on and how exactly.

    False, and nothing is written, where that leads to another phase than the one that was set up.
    """
    control, run, span = training.control, training.run, training.span

    def load(folder: Path) -> str | None:
        """Put a checkpoint in place while it is checked; a sound one that is older puts its own in place of it."""
        here = Checkpoint(folder, {})
        try:
            if stored_phase(folder) in (span.number, None):
                checkpoint.load_into(here, training.model, training.optimizer.optimizer)
            else:  # a phase begins with the model of the one before, and with a fresh optimizer
                checkpoint.load_weights(here, training.model)
        except Damaged as damaged:
            return str(damaged)
        return None

    control.wait()
    found, problems = checkpoint.newest_valid(run, load, control)
    position = Position(**found.state["position"]) if found else Position()
    if control.rank == 0:
        for problem in problems:
            print(f"hpcft: passed over {problem}", flush=True)
    if phase_after(run, training.spans, position.phase, position.step) != span.number:
        return False
    prints = fingerprint(training)
    exactness = "bit-exact" if training.recipe.train.deterministic else "sample-exact"
    changes: list[str] = []
    if found:
        before = found.state["fingerprint"]
        if position.phase != span.number:
            before, prints = ({key: one[key] for key in one if key not in OF_A_PHASE} for one in (before, prints))
        exactness, changes = compare(before, prints)
        if exactness == "refused":
            fix = "Put it back as it was, or submit a new run."
            raise UserError(Fault(str(run.path), f"cannot go on exactly: {'; '.join(changes)}.", fix))
        if training.accelerator.scaler is not None and found.state["scaler"]:  # none before a change to fp16
            training.accelerator.scaler.load_state_dict(found.state["scaler"])
    training.position = in_phase(position, span)
    border = training.progress.border
    if border not in (None, position.step):
        raise RuntimeError(f"the checkpoint of step {border}, at the end of a phase, is not sound")  # the next job's
    if control.rank == 0 and border is None:
        record = {
            "step": training.position.step,
            "total_steps": training.total_steps,
            "exactness": exactness,
            "changes": changes,
            "device": prints["device"],
            "frozen_weights": training.frozen,
            "passed_over": problems,
            "time": time.time(),
        }
        write_json(training.job.path / "resumed.json", record)
    if control.rank == 0:
        words = f"goes on at step {training.position.step}" if found else "begins at step 0"
        phase = f" in phase {span.name}" if span.name else ""
        where = f"{words} of {training.total_steps}{phase}"
        print(f"hpcft: {where}, {exactness} {'; '.join(changes)}".strip(), flush=True)
    return True


def in_phase(position: Position, span: Span) -> Position:
    """The position at which this phase is trained on from there: the same, but where it is the end of another one."""
    if position.phase == span.number:
        return position
    begun = replace(position, phase=span.number, left_out_in_a_row=0)
    if span.other_measure:  # a lower loss than that of other targets would be no better model
        begun = replace(begun, best=None, best_step=-1)
    return begun


REFUSED_CHANGES = (
    "data",
    "seed",
    "batch_size",
    "batch_tokens",
    "grouping",
    "total_steps",
    "task",
    "optimizer",
    "frozen weights",
)
"""What must not change between jobs: rows would be skipped or repeated, the curve would mean another thing, or moments
would be taken for others."""


LEARNING = ("learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "epsilon", "clip_norm")
"""What the user may change on purpose; the log says from which step on it is so."""
OF_A_PHASE = ("data", "batch_size", "batch_tokens", "grouping", "micro_batch_size", "total_steps", *LEARNING)
"""What may be otherwise in the next phase."""


def fingerprint(training: Training) -> dict[str, Any]:
    """All on which the bits of a step depend."""
    train = training.recipe.train
    cuda = training.accelerator.device.type == "cuda"
    return {
        "data": training.train.fingerprint,
        "task": training.recipe.task,
        "frozen weights": training.frozen,
        "seed": train.seed,
        "batch_size": train.batch_size,
        "grouping": train.grouping,
        "batch_tokens": train.batch_tokens,
        "micro_batch_size": training.share.micro_batch_size,
        "optimizer": train.optimizer,
        "gradient_checkpointing": train.gradient_checkpointing,
        "sharding": train.sharding,
        "offload": train.offload,
        "deterministic": train.deterministic,
        "total_steps": training.span.ends - training.span.begins,
        "processes": training.control.ranks,
        "threads": torch.get_num_threads(),
        "precision": train.precision,
        **{key: getattr(train, key) for key in LEARNING},
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if cuda else _cpu_name(),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def compare(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, list[str]]:
    """`bit-exact`, `sample-exact` or `refused`, and what has changed, in words.

    With algorithms that may give other bits each time, no resume is called bit-exact.
    """
    changed = [key for key in now if before.get(key) != now[key]]
    words = [f"{key} {before.get(key)} -> {now[key]}" for key in changed]
    if any(key in REFUSED_CHANGES for key in changed):
        return "refused", words
    exact = not changed and now.get("deterministic", True)
    return ("bit-exact" if exact else "sample-exact"), words
