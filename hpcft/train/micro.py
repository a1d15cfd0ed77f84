"""The micro-batch: the most rows whose worst step has room, found when a run begins and the same in all its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from hpcft.disk import read_json, write_json
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.schema import memory_bytes
from hpcft.train import hostmemory
from hpcft.train.blueprint import measure, step_of
from hpcft.train.control import Control
from hpcft.train.estimate import fits, moment_bytes, sizes
from hpcft.train.model import LossModel

HEADROOM = 0.95
"""Of a card that a trial may take: another order of rows leaves other gaps between blocks."""
PASSES = 2
"""Of a trial: the second meets the gradients of the first."""


@dataclass(frozen=True)
class Trial:
    """A model as it is before its first step, to see whether a micro-batch has room."""

    model: LossModel
    accelerator: Accelerator

    def has_room(self, recipe: Recipe, rows: int) -> bool:
        """Whether the worst forward and backward passes have room on this card, beside moments that are still to come.

        Weights and randomness stay as they were, and no other process is needed.
        """
        device, length = self.accelerator.device, recipe.data.max_length
        limit = torch.cuda.get_device_properties(device).total_memory
        if known := getattr(torch.cuda, "get_per_process_memory_fraction", None):  # since torch 2.8
            limit = int(limit * known(device))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            moments = moment_bytes(recipe, measure(step_of(recipe, rows)))
            held = torch.empty(moments, dtype=torch.uint8, device=device)
            batch = self.model.example(rows, length, 0)
            for _ in range(PASSES):
                # The bare model, of which DDP takes no notice: one process may fail here while others go on.
                with self.accelerator.autocast():
                    loss = self.model(**self.model.inputs(batch, device))
                self.accelerator.backward(loss)
            del held
            return bool(torch.cuda.max_memory_reserved(device) <= HEADROOM * limit)
        except torch.OutOfMemoryError:
            return False
        finally:
            self.model.zero_grad()
            torch.cuda.empty_cache()


def largest_micro_batch(recipe: Recipe, run: RunDir, control: Control, trial: Trial, phase: str | None = None) -> int:
    """Rows of a micro-batch, the same on every process: what an earlier job found on such a device, else found now.

    On a GPU the estimate's answer is tried, and smaller ones until one has room; the memory of a CPU's job, and
    processes that share a model, are left to the estimate.
    """
    path = run.path / (f"micro_batch-{phase}.json" if phase else "micro_batch.json")
    key = circumstances(recipe, trial.accelerator)
    record = read_json(path) if control.rank == 0 else None
    known = control.share(record["rows"] if record and record["circumstances"] == key else 0)
    if known:
        return known
    tried = bool(recipe.resources.gpus) and recipe.train.sharding == "none"
    limit = min(control.gather(memory(recipe, trial.accelerator)))
    possible = [rows for rows in sizes(recipe) if fits(recipe, rows, limit)] or [1]
    rows = next((rows for rows in possible if not tried or all(control.gather(trial.has_room(recipe, rows)))), 1)
    if control.rank == 0:
        how = "tried" if tried else "estimated"
        write_json(path, {"rows": rows, "found": how, "circumstances": key})
        print(f"hpcft: micro_batch_size auto: {rows} rows, {how} for {limit / 2**30:.1f} GiB", flush=True)
    return rows


def circumstances(recipe: Recipe, accelerator: Accelerator) -> dict[str, Any]:
    """All on which the answer depends, but for the memory of the host, which is another in each job."""
    cuda = accelerator.device.type == "cuda"
    keys = ("precision", "gradient_checkpointing", "optimizer", "sharding", "offload")
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processes": recipe.processes,
        **{key: getattr(recipe.train, key) for key in keys},
    }


def memory(recipe: Recipe, accelerator: Accelerator) -> int:
    """Bytes for this process: of its card, or its share of what the job may take of the host."""
    if accelerator.device.type == "cuda":
        return int(torch.cuda.get_device_properties(accelerator.device).total_memory)
    most = [hostmemory.available()]
    if recipe.resources.memory and (asked := memory_bytes(recipe.resources.memory)):
        most.append(asked)
    return min(most) // recipe.local_processes
