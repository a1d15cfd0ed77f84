"""A training in this very process: set up from a run directory as a worker does it, and driven step by step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from hpcft.train.checkpoint import model_tensors, optimizer_tensors
from hpcft.train.loop import PHASE_OVER, train
from hpcft.train.progress import first_progress
from hpcft.train.setup import set_up
from hpcft.train.training import Training
from tests.parts import make_tiny_gpt2, write_rows


def make_parts(parts: Path) -> None:
    """A tiny GPT-2, rows and a prompt, unless they are there."""
    make_tiny_gpt2(parts / "model")
    if not (parts / "rows.jsonl").exists():
        write_rows(parts / "rows.jsonl", 60, seed=1)
        (parts / "prompt.md").write_text("### Question\n{{question}}\n\n### Answer\n{{answer}}")


def make_run(parts: Path, path: Path, train: Mapping[str, Any], **sections: Any) -> RunDir:
    """A run that no job has begun, on a tiny GPT-2 and 60 rows in the folder `parts`."""
    make_parts(parts)
    data = {
        "train": str(parts / "rows.jsonl"),
        "template": str(parts / "prompt.md"),
        "max_length": 128,
        "workers": 0,
        **sections.pop("data", {}),
    }
    recipe = {
        "name": path.name,
        "task": "instruct",
        "cluster": "local",
        "model": {"path": str(parts / "model"), **sections.pop("model", {})},
        "data": data,
        "train": {"steps": 8, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, **train},
        "resources": {"gpus": 0, **sections.pop("resources", {})},
        **sections,
    }
    path.mkdir(parents=True)
    write_json(path / "recipe.json", recipe)
    return RunDir(path)


def begin(run: RunDir, number: int = 1) -> Training:
    """What job `number` of a run has before its first step."""
    job = run.job(number)
    job.path.mkdir(parents=True, exist_ok=True)
    scratch = run.path / f"scratch-{number}"
    scratch.mkdir(exist_ok=True)
    return set_up(run, job, scratch)


class At:
    """Stands in the place of the stop file: there once training is at a step."""

    def __init__(self, training: Training, step: int) -> None:
        self.training, self.step = training, step

    def exists(self) -> bool:
        return self.training.position.step >= self.step


def train_job(run: RunDir, number: int, stop: int | None = None, *, phases: int | None = None) -> str:
    """How job `number` ends, which is stopped after this step, if any; or left where so many phases are over."""
    job = run.job(number)
    job.path.mkdir(parents=True, exist_ok=True)
    scratch = run.path / f"scratch-{number}"
    scratch.mkdir(exist_ok=True)
    progress, begun = first_progress(scratch), 0
    while True:
        training = set_up(run, job, scratch, progress)
        if stop is not None:
            training.control.stop_file = At(training, stop)  # type: ignore[assignment]
        ended, begun = train(training), begun + 1
        if ended != PHASE_OVER or begun == phases:
            return ended


def digest(training: Training) -> str:
    """SHA-256 over weights and the optimizer's state."""
    found = hashlib.sha256()
    tensors = {
        **model_tensors(training.model),
        **optimizer_tensors(training.model, training.optimizer.optimizer),
    }
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].cpu().numpy().tobytes())
    return found.hexdigest()
