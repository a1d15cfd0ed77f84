"""When and what is saved: checkpoints on the way, the final model at the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import asdict
from typing import Any

from hpcft.curves.writer import CurveWriter
from hpcft.rundir import sync_files, sync_folder, write_json
from hpcft.train import checkpoint
from hpcft.train.resume import fingerprint
from hpcft.train.training import Training

PROBE_CAUTION = 2.0
"""A small file is written faster than a large one."""
PROBE_BYTES = 128 << 20
"""Written once at the start to learn how long a save will take."""


def save_interval(training: Training) -> int:
    """Steps between two checkpoints."""
    every = training.recipe.train.save_every
    return 500 if every == "auto" else every


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
        training.model.write(writing)
        training.tokenizer.save_pretrained(writing)
        shutil.rmtree(final, ignore_errors=True)  # of a job that was killed between this and finished.json
        sync_files(writing)
        writing.rename(final)
        sync_folder(final.parent)
        facts: dict[str, Any] = {"step": training.position.step, "tokens": training.position.tokens}
        write_json(training.run.path / "finished.json", {**facts, "time": time.time(), "job": training.job.number})
    training.control.wait()


def measure_save(training: Training) -> float:
    """Seconds that a save will take: as long as the last one, else from its size and a small file on the same disk."""
    for job in reversed(training.run.jobs()):
        if last := (job.ended or {}).get("save_seconds"):
            return float(last)
    size = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values()) * 3
    training.run.checkpoints.mkdir(exist_ok=True, mode=0o700)
    free = shutil.disk_usage(training.run.path).free
    if free < size:
        print(f"hpcft: a checkpoint needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free", flush=True)
    probe, block = training.run.checkpoints / ".probe", os.urandom(1 << 20)
    blocks = max(1, min(PROBE_BYTES, size) >> 20)
    started = time.monotonic()
    with probe.open("w+b") as file:
        for _ in range(blocks):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        hashlib.file_digest(file, "sha256")
    seconds: float = (time.monotonic() - started) * size / (blocks << 20)
    probe.unlink()
    return PROBE_CAUTION * seconds
