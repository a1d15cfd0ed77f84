"""What the tests of the promise share: a small recipe, runs of it that are cut or not, and what they came to."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from hpcft.cli.looking import job_curves
from hpcft.curves.stitch import stitch
from hpcft.disk import read_json
from hpcft.launch import local
from hpcft.rundir import JobDir, RunDir
from tests.parts import make_tiny_gpt2, write_rows

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def make_parts(folder: Path, rows: int = 120) -> None:
    """Model, rows and prompt that `make_recipe` names."""
    make_tiny_gpt2(folder / "model")
    write_rows(folder / "train.jsonl", rows, seed=1)
    write_rows(folder / "validation.jsonl", 12, seed=2)
    (folder / "prompt.md").write_text("### Question\n{{question}}\n\n### Answer\n{{answer}}")


def make_recipe(folder: Path, name: str, steps: int, processes: int = 1, walltime: str = "0:10:00") -> Path:
    """A recipe beside the parts: accumulation 2, dropout on, two data-loading workers."""
    values = {
        "name": name,
        "task": "instruct",
        "cluster": "local",
        "model": {"path": "./model"},
        "data": {
            "train": "train.jsonl",
            "validation": "validation.jsonl",
            "template": "prompt.md",
            "max_length": 192,
            "workers": 2,
        },
        "train": {
            "steps": steps,
            "batch_size": 4 * processes,
            "micro_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 5,
            "save_every": 4,
        },
        "evaluate": {"every": 10},
        "resources": {"gpus": 0, "processes": processes, "walltime": walltime},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def hpcft(*arguments: str | Path, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    command = [sys.executable, "-m", "hpcft.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=ENVIRONMENT)


def run_whole(recipe: Path, runs: Path, *more: str) -> RunDir:
    """The finished run of a recipe in one job."""
    done = hpcft("submit", recipe, "--runs", runs, "--wait", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDir(runs / recipe.stem)
    assert [job.ended["ending"] for job in run.jobs() if job.started and job.ended] == ["finished"]
    return run


@dataclass(frozen=True)
class Outcome:
    """What two runs must have in common to the last bit."""

    weights: str
    """SHA-256 of the final model's file, or of its adapters'."""
    curve: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    accuracy: list[tuple[int, float]]
    """In validation; empty where rows have no labels."""


def outcome(run: RunDir) -> Outcome:
    """What a finished run came to."""
    names = ("model.safetensors", "adapter_model.safetensors")
    file = next(run.final_model / name for name in names if (run.final_model / name).exists())
    weights = hashlib.sha256(file.read_bytes()).hexdigest()
    stitched = stitch(job_curves(run))
    curves = [stitched.curve(tag) for tag in ("train/loss", "validation/loss", "validation/accuracy")]
    pairs = [list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) for curve in curves]
    return Outcome(weights, *pairs)


def wait_for(condition: object, seconds: float = 120, pause: float = 0.01) -> None:
    """Until `condition()` holds; fails the test if it does not in time."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


def running_job(run: RunDir) -> JobDir | None:
    """The job whose supervisor is alive."""
    return next((job for job in run.jobs() if local.is_running(job)), None)


def is_over(run: RunDir) -> bool:
    """Whether no job of this run will do anything any more."""
    return bool(run.finished or run.halted)


def job_tree(job: JobDir) -> list[int]:
    """Process ids of the job's supervisor and all below it, the supervisor first."""
    started = job.started
    return [started["pid"], *descendants(started["pid"])] if started else []


def descendants(pid: int) -> Iterator[int]:
    """Children and theirs, from the kernel."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


def kill(pids: list[int]) -> None:
    """SIGKILL to each; gone ones do not matter."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def trains(job: JobDir) -> bool:
    """Whether the job has done a step of its own."""
    beat = read_json(job.path / "heartbeat.json") or {}
    return bool(beat.get("last_step"))
