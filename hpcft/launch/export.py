"""`hpcft export`: what can be known without torch, and the process in the run's env that does the rest."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.inenv import Left, call, env_faults
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir

DTYPES = ("fp32", "fp16", "bf16")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Export:
    """Which model of a run goes where, in which precision."""

    run: RunDir
    out: Path
    dtype: str = "fp32"
    keep_adapter: bool = False
    checkpoint: int | None = None
    """Step whose checkpoint is taken, in place of the final model."""
    best: bool = False
    """Take the weights that had the lowest validation loss, which `train.keep_best` keeps."""
    push: str | None = None
    """Repository on the hub that the folder goes to."""

    @property
    def left(self) -> Left:
        return Left(self.run, self.checkpoint, self.best)


def faults(export: Export) -> list[Fault]:
    """Everything that is in the way, as far as it can be known without torch."""
    run, out, found = export.run, export.out, []
    if export.dtype not in DTYPES:
        found.append(Fault("--dtype", f'"{export.dtype}" is not known.', f"Use {', '.join(DTYPES)}."))
    if os.path.lexists(out):
        found.append(Fault(str(out), "exists.", "Name a new folder, or remove it."))
    elif not os.access(out.parent, os.W_OK | os.X_OK):
        found.append(Fault(str(out), f"nothing can be made in {out.parent}.", "Name another folder."))
    found += export.left.faults()
    if export.keep_adapter and not run.recipe.lora:
        found.append(Fault("--keep-adapter", f"{run.name} has no adapter.", "Leave it out."))
    if export.push is not None and not REPOSITORY.fullmatch(export.push):
        found.append(Fault("--push", f'"{export.push}" names no repository.', "Write owner/name."))
    return [*found, *env_faults(run)]


def loader(recipe: Recipe) -> str:
    """What loads an exported model of this task, in words."""
    if recipe.task == "prefer":
        return "hpcft.train.pair.Pair.from_pretrained, as its README.md shows"
    kind = "SequenceClassification" if recipe.has_classes else "CausalLM"
    return f"AutoModelFor{kind}.from_pretrained and transformers.pipeline"


def write(export: Export) -> int:
    """The exit code of the process that writes the folder; what it has to say it has said on stderr.

    Raises UserError with every fault that is found before it starts.
    """
    if found := faults(export):
        raise UserError(found)
    kept = str(int(export.keep_adapter))
    words = [str(export.run.path), str(export.out), export.dtype, kept, export.left.name, export.push or ""]
    return call(export.run, "hpcft.train.export", words)
