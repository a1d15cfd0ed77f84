"""When what is saved: checkpoints on the way, beside the steps, and the weights that validate best."""

from __future__ import annotations

import contextlib
import errno
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from hpcft.curves.writer import CurveWriter
from hpcft.interval import save_interval, time_between_failures
from hpcft.schema import memory_bytes
from hpcft.train import checkpoint
from hpcft.train.blocks import Pieces
from hpcft.train.costs import Costs, measure_save
from hpcft.train.final import put_back, write_best
from hpcft.train.hostmemory import available
from hpcft.train.resume import fingerprint
from hpcft.train.snapshot import Files, Snapshot, take_part
from hpcft.train.tensorfile import layout, tensor_file
from hpcft.train.training import Training
from hpcft.train.writer import Outcome, Writer

MEMORY_SHARE = 0.8
"""Of what the host has left, that a copy of the tensors may take: data loaders and CUDA grow too."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def state_tensors(training: Training) -> Files:
    """{file: {name: tensor}}: a checkpoint's tensors as they lie; sharded ones are gathered as they are copied."""
    return {
        "model": checkpoint.model_tensors(training.model),
        "optimizer": checkpoint.optimizer_tensors(training.model, training.optimizer.optimizer),
    }


@dataclass
class Saver:
    """Saves a training beside its steps: the tensors are copied while the next step computes its gradient, and only its
    update waits for the copy; the disk is the business of a thread.

    Rank 0 writes. The other processes go on, and are only asked for their shards where the model is sharded.
    """

    training: Training
    curve: CurveWriter | None
    writer: Writer = field(default_factory=Writer)
    saved: tuple[int, int] | None = None
    """(step, evaluated) of the newest checkpoint that is whole."""
    begun: tuple[int, int] | None = None
    """The same of the one in flight, or that was tried last; None in flight means that only best/ is written."""
    last_begun: int = 0
    """Step after which a checkpoint was last begun, or where this job began."""
    due: bool = False
    copies: bool | None = None
    """Whether the host's memory holds a copy of the tensors; else training waits for the disk. None until known."""
    costs: Costs = field(default_factory=lambda: Costs(0.0, 0.0))
    stall: float = 0.0
    """Seconds for which the newest save has stopped training."""

    def __post_init__(self) -> None:
        training = self.training
        position, run = training.position, training.run
        self.snapshot = Snapshot(cuda=training.accelerator.device.type == "cuda")
        self.first, self.started = position.step, time.monotonic()
        self.last_begun = position.step
        self.best = position.best, position.best_step
        if training.control.rank > 0:
            return
        training.before_update = self._before_update
        put_back(run)
        if steps := run.saved_steps():
            self.saved = steps[-1], checkpoint.read(run, steps[-1]).state["position"]["evaluated"]
        self.costs = measure_save(training)
        self.between_failures = time_between_failures([job.ended or {} for job in run.jobs()])
        training.progress.say(save_seconds=self.costs.seconds)

    def after_step(self) -> None:
        """Save if it is time to, or was while a save was in flight; say what came of the one before."""
        position, total = self.training.position, self.training.span.ends
        best = self.training.recipe.train.keep_best and position.best_step == position.step
        self._collect(wait=best or position.step == total)
        self.due = self.due or position.step == total or self._is_time(position.step)
        now = self._agreed(self.due and not self.writer.busy)
        if now or best:
            self._begin(now, best)
        elif position.step == self.first + 1 and self.training.control.rank == 0 and self._has_room():
            self.snapshot.prepare_beside(state_tensors(self.training))

    def _has_room(self) -> bool:
        """Whether the host's memory holds a copy of a checkpoint's tensors, which is found out once."""
        if self.copies is None:
            size = sum(layout(content).size for content in state_tensors(self.training).values())
            free = available()
            # What is sharded is gathered on the host whatever there is: it has no other place to be whole in.
            self.copies = self._sharded or size < MEMORY_SHARE * free
            if not self.copies:
                words = f"a copy of {size / 1e9:.1f} GB has no room in the {free / 1e9:.1f} GB that the host has left"
                print(f"hpcft: {words}: training waits for each save. Ask for more resources.memory.", flush=True)
        return self.copies

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
        steps = save_interval(self.costs.stall, self.costs.seconds, pace, walltime, self.between_failures)
        return step - self.last_begun >= steps

    def last(self) -> None:
        """Save what is not saved yet, and wait until it is on disk. Raises OSError where it cannot be."""
        position, control = self.training.position, self.training.control
        self._collect(wait=True)
        # A run that has not made a step has nothing to save: the next job begins as this one did.
        if control.share(position.step > 0 and self.saved != (position.step, position.evaluated)):
            self._begin(True, False)
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

    def _begin(self, whole: bool, best: bool) -> None:
        """Let the writer begin: a whole checkpoint, best/, or both. Tensors must not change before `_before_update`."""
        training = self.training
        position, progress = training.position, training.progress
        if whole:
            self.due, self.last_begun = False, position.step
        if training.control.rank > 0 and not self._sharded:
            return
        tensors = state_tensors(training) if whole else {"model": checkpoint.model_tensors(training.model)}
        if training.control.rank > 0:
            take_part(tensors)
            return
        started = time.monotonic()
        progress.say(phase="save")
        self.curve_on_disk = self.curve.durable() if self.curve else lambda: None
        scaler = training.accelerator.scaler
        state = {
            "step": position.step,
            "position": asdict(position),
            "fingerprint": fingerprint(training),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        copies = self._sharded or self._has_room()  # what is in parts can only be written as a copy
        if copies:
            files = self.snapshot.begin(tensors)
            weights = self.snapshot.tensors("model")
            if tensors["model"].keys() - dict(training.model.named_parameters()).keys():
                self.snapshot.wait()  # a forward pass may change a buffer
        else:
            files = {file: tensor_file(content) for file, content in tensors.items()}
            weights = tensors["model"]
        self.begun = (position.step, position.evaluated) if whole else None
        self.writer.start(
            position.step, lambda: self._write(state, files if whole else None, weights if best else None)
        )
        if not copies:
            self.writer.wait()
        self.stall = time.monotonic() - started
        progress.spent("save", self.stall)
        progress.say(saving_since=time.time(), phase="train")
        training.control.forget_look()

    def _write(
        self, state: dict[str, Any], files: Mapping[str, Pieces] | None, best: Mapping[str, Tensor] | None
    ) -> None:
        """What the writer does: best/, where these weights are the best, and then the checkpoint, if it is one."""
        training, recipe, here = self.training, self.training.recipe.train, state["position"]
        if self.copies:
            self.snapshot.wait()
        self.curve_on_disk()  # first, so that what a resume keeps is on disk too
        refusal = None
        if best is not None:
            try:
                write_best(training, best, here["best"], here["best_step"])
                self.best = here["best"], here["best_step"]
            except OSError as error:
                refusal = error
                here["best"], here["best_step"] = self.best  # what the checkpoint says is what best/ holds
        if files is not None:
            limit = memory_bytes(recipe.keep_bytes) if recipe.keep_bytes else None
            checkpoint.save(training.run, state, files, recipe.keep_checkpoints, limit)
        if refusal:
            raise refusal

    def _before_update(self) -> None:
        """Wait until the copy is whole, which is made while the next step computes its gradient."""
        started = time.monotonic()
        self.snapshot.wait()
        self.stall += time.monotonic() - started

    def _collect(self, *, wait: bool = False) -> Outcome | None:
        """What came of the save that has ended, told to the supervisor, the log and the curve; None if none has."""
        position, progress = self.training.position, self.training.progress
        with progress.phase("save") if wait and self.writer.busy else contextlib.nullcontext():
            outcome = self.writer.collect(wait=wait)
        if outcome is None:
            return None
        if outcome.error:
            words = refusal_words(outcome.step, outcome.error)
            print(f"hpcft: {words}", flush=True)
            progress.say(saving_since=None, save_fault=words)
            if position.best_step == outcome.step:
                position.best, position.best_step = self.best
        elif self.begun is None:
            progress.say(saving_since=None, save_fault=None)
        else:
            self.saved = self.begun
            self.costs = Costs(self.stall, seconds := self.stall + outcome.seconds)
            progress.say(saving_since=None, save_fault=None, saved_step=outcome.step)
            progress.say(save_seconds=seconds, save_stall_seconds=self.stall)
            if self.curve:
                self.curve.scalar("save/seconds", seconds, outcome.step)
                self.curve.scalar("save/stall_seconds", self.stall, outcome.step)
        return outcome


def refusal_words(step: int, error: OSError) -> str:
    """What became of a save that the file system refused, and what to do."""
    # In small letters: in the system's own words the log of a job is searched for what has ended it.
    reason = (error.strerror or str(error)).lower()
    fix = "Make room" if error.errno in FULL else "Look at the file system"
    what = f"the checkpoint of step {step} could not be written: {reason}."
    return f"{what} {fix}: training goes on, what was saved before stays, and the next save tries again."
