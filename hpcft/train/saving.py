"""When and what is saved: checkpoints on the way, the final model at the end."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from hpcft.curves.writer import CurveWriter
from hpcft.interval import save_interval, time_between_failures
from hpcft.rundir import sync_files, sync_folder, write_json
from hpcft.train import checkpoint
from hpcft.train.blocks import write_files
from hpcft.train.resume import fingerprint
from hpcft.train.snapshot import Files, Snapshot, take_part
from hpcft.train.tensorfile import as_bytes
from hpcft.train.training import Training
from hpcft.train.writer import Outcome, Writer

FULL = (errno.ENOSPC, errno.EDQUOT)
PROBE_CAUTION = 2.0
"""A small file is written faster than a large one."""
SLOW_DISK = 2e8
"""Bytes a second, for a disk that could not be measured."""
SNAPSHOT_PACE = 2e9
"""Bytes a second, slower than any copy into pinned memory: until one has been measured."""
PROBE_BYTES = 128 << 20
"""Written once at the start to learn how long a save will take."""


def state_tensors(training: Training) -> Files:
    """{file: {name: tensor}}: a checkpoint's tensors as they lie; sharded ones are gathered as they are copied."""
    return {
        "model": checkpoint.model_tensors(training.model),
        "optimizer": checkpoint.optimizer_tensors(training.model, training.optimizer.optimizer),
    }


@dataclass
class Saver:
    """Saves a training beside its steps: a step waits for the snapshot, the disk is the business of a thread.

    Rank 0 writes. The other processes go on, and are only asked for their shards where the model is sharded.
    """

    training: Training
    curve: CurveWriter | None
    writer: Writer = field(default_factory=Writer)
    saved: tuple[int, int] | None = None
    """(step, evaluated) of the newest checkpoint that is whole."""
    begun: tuple[int, int] | None = None
    """The same of the last that was begun."""
    due: bool = False

    def __post_init__(self) -> None:
        training = self.training
        self.snapshot = Snapshot(cuda=training.accelerator.device.type == "cuda")
        self.first, self.started = training.position.step, time.monotonic()
        self.costs = Costs(0.0, 0.0)
        if training.control.rank > 0:
            return
        if steps := training.run.saved_steps():
            position = checkpoint.read(training.run, steps[-1]).state["position"]
            self.saved = steps[-1], position["evaluated"]
        self.costs = measure_save(training)
        self.between_failures = time_between_failures([job.ended or {} for job in training.run.jobs()])
        training.progress.say(save_seconds=self.costs.seconds)

    def after_step(self) -> None:
        """Save if it is time to, or was while a save was in flight; say what came of the one before."""
        step, total = self.training.position.step, self.training.total_steps
        self._collect(wait=step == total)
        self.due = self.due or step == total or self._is_time(step)
        if self._agreed(self.due and not self.writer.busy):
            self.due = False
            self._begin()

    def _is_time(self, step: int) -> bool:
        """Whether the recipe, or with `auto` what saves and steps have taken so far, wants a save after this step."""
        training = self.training
        if (every := training.recipe.train.save_every) != "auto":
            return step % every == 0
        if training.control.rank > 0:
            return False
        pace = (time.monotonic() - self.started) / (step - self.first)
        submitted = training.job.submitted  # of a job that nobody submitted, the end is not known
        walltime = float(submitted["walltime"]) if submitted else math.inf
        stall, seconds = self.costs.stall, self.costs.seconds
        steps = save_interval(stall, seconds, pace, walltime, self.between_failures)
        return step - (self.begun or (self.first,))[0] >= steps

    def last(self) -> None:
        """Save what is not saved yet, and wait until it is on disk. Raises OSError where it cannot be."""
        position, control = self.training.position, self.training.control
        self._collect(wait=True)
        # A run that has not made a step has nothing to save: the next job begins as this one did.
        if control.share(position.step > 0 and self.saved != (position.step, position.evaluated)):
            self._begin()
            if (outcome := self._collect(wait=True)) and outcome.error:
                raise outcome.error
        control.wait()
        control.forget_look()

    def close(self) -> None:
        """Wait for a save in flight, whatever ends the training: it is a sound one."""
        self._collect(wait=True)

    def _agreed(self, now: bool) -> bool:
        """Whether every process begins a save; they need to agree only where each has a part of the tensors."""
        return bool(self.training.control.share(now)) if self._sharded else now

    @property
    def _sharded(self) -> bool:
        return self.training.recipe.train.sharding != "none"

    def _begin(self) -> None:
        """Take the snapshot and let the writer begin; returns as soon as training may change its tensors."""
        training = self.training
        position, progress = training.position, training.progress
        if training.control.rank > 0:
            if self._sharded:
                take_part(state_tensors(training))
            return
        started = time.monotonic()
        progress.say(phase="save")
        # The curve first, so that what a resume keeps is on disk too.
        curve_on_disk: Callable[[], None] = self.curve.durable() if self.curve else lambda: None
        scaler = training.accelerator.scaler
        state = {
            "step": position.step,
            "position": asdict(position),
            "fingerprint": fingerprint(training),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        files = self.snapshot.take(state_tensors(training))
        keep = training.recipe.train.keep_checkpoints

        def work() -> None:
            curve_on_disk()
            checkpoint.save(training.run, state, files, keep)

        self.begun = position.step, position.evaluated
        self.writer.start(position.step, work)
        self.stall = stall = time.monotonic() - started
        progress.spent("save", stall)
        progress.say(save_stall_seconds=stall, saving_since=time.time())
        if self.curve:
            self.curve.scalar("save/stall_seconds", stall, position.step)
        training.control.forget_look()

    def _collect(self, *, wait: bool = False) -> Outcome | None:
        """What came of the save that has ended, told to the supervisor, the log and the curve; None if none has."""
        progress = self.training.progress
        with progress.phase("save") if wait and self.writer.busy else contextlib.nullcontext():
            outcome = self.writer.collect(wait=wait)
        if outcome is None:
            return None
        if outcome.error:
            words = refusal_words(outcome.step, outcome.error)
            print(f"hpcft: {words}", flush=True)
            progress.say(saving_since=None, save_fault=words)
        else:
            self.saved = self.begun
            self.costs = Costs(self.stall, seconds := self.stall + outcome.seconds)
            progress.say(saving_since=None, save_fault=None, save_seconds=seconds, saved_step=outcome.step)
            if self.curve:
                self.curve.scalar("save/seconds", seconds, outcome.step)
        return outcome


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


def refusal_words(step: int, error: OSError) -> str:
    """What became of a save that the file system refused, and what to do."""
    # In small letters: in the system's own words the log of a job is searched for what has ended it.
    reason = (error.strerror or str(error)).lower()
    fix = "Make room" if error.errno in FULL else "Look at the file system"
    what = f"the checkpoint of step {step} could not be written: {reason}."
    return f"{what} {fix}: training goes on, what was saved before stays, and the next save tries again."


@dataclass(frozen=True)
class Costs:
    """What a save takes."""

    stall: float
    """Seconds for which training waits."""
    seconds: float
    """Until it is on disk."""


def measure_save(training: Training) -> Costs:
    """What a save will take: as much as the last one, else by its size and a small file on the same disk."""
    for job in reversed(training.run.jobs()):
        ended = job.ended or {}
        if (seconds := ended.get("save_seconds")) and (stall := ended.get("save_stall_seconds")):
            return Costs(float(stall), float(seconds))
    size = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values()) * 3
    training.run.checkpoints.mkdir(exist_ok=True, mode=0o700)
    probe = training.run.checkpoints / ".probe"
    probe.unlink(missing_ok=True)
    block = as_bytes(os.urandom(1 << 20))
    blocks = max(1, min(PROBE_BYTES, size) >> 20)
    started = time.monotonic()
    try:
        write_files(probe.parent, {probe.name: [block] * blocks})
        seconds = (time.monotonic() - started) * float(size / (blocks << 20))
    except OSError as refusal:  # no reason to end a job which may train until there is room again
        print(f"hpcft: how fast the disk writes is not known: {refusal}", flush=True)
        seconds = size / SLOW_DISK
    finally:
        probe.unlink(missing_ok=True)
    return Costs(size / SNAPSHOT_PACE, PROBE_CAUTION * seconds)
