"""Checkpoints: all that is needed to go on, written as transactions, believed only when their hashes fit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hpcft.errors import Fault, UserError
from hpcft.rundir import RunDir, sync_folder, write_json
from hpcft.train.blocks import Damaged, Pieces, check_files, size_of, write_files
from hpcft.train.model import LossModel
from hpcft.train.tensorfile import as_bytes

FORMAT = 2
REPLACED = ".replaced-"
ROOM_TO_SPARE = 64 << 10
"""Bytes that a save leaves free: curves, heartbeats and endings are written too."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been verified."""

    folder: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def model_tensors(model: LossModel) -> dict[str, Tensor]:
    """What is to save of the model, by name, each storage once: tied weights are saved under their first name."""
    names, seen = model.saved_names(), set[object]()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in names:
            continue
        # One that is sharded, or empty, has no address of its own.
        own = tensor.numel() and not hasattr(tensor, "full_tensor")
        place = ("memory", tensor.data_ptr()) if own else ("object", id(tensor))
        if place not in seen:
            seen.add(place)
            tensors[name] = tensor.detach()
    return tensors


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as `exp_avg/h.0.weight`: by name, since an order of parameters may change."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).detach()
    return tensors


def save(
    run: RunDir, state: Mapping[str, Any], files: Mapping[str, Pieces], keep: int, limit: int | None = None
) -> Path:
    """The folder of a new checkpoint, whole on disk; older ones beyond `keep`, or `limit` in bytes, are gone then.

    Raises OSError with nothing changed but a hidden folder, which the next save clears away.
    """
    parent = run.checkpoints
    parent.mkdir(exist_ok=True, mode=0o700)
    _tidy(parent)
    check_room(parent, sum(size_of(pieces) for pieces in files.values()))
    name = f"step-{state['step']:08d}"
    writing = parent / f".writing-{name}"
    writing.mkdir(mode=0o700)
    try:
        _write(writing, state, files)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)  # a full disk must have room for the records of this ending
        raise
    final = parent / name
    if final.exists():  # of the same step, before an evaluation
        final.rename(parent / f"{REPLACED}{name}")
    writing.rename(final)
    sync_folder(parent)
    prune(run, keep, limit)
    return final


def check_room(folder: Path, size: int) -> None:
    """Raise OSError, as a write would, where so many bytes do not fit: nothing is begun then."""
    free = shutil.disk_usage(folder).free
    if free < size + ROOM_TO_SPARE:
        words = f"{os.strerror(errno.ENOSPC)}: it takes {size / 1e6:.1f} MB and {free / 1e6:.1f} MB are free"
        raise OSError(errno.ENOSPC, words, str(folder))


def _write(folder: Path, state: Mapping[str, Any], files: Mapping[str, Pieces]) -> None:
    """Write all files of a checkpoint, the manifest last."""
    text = (json.dumps(dict(state), indent=1, sort_keys=True) + "\n").encode()
    tensors = {f"{file}.safetensors": pieces for file, pieces in files.items()}
    facts = write_files(folder, {**tensors, "state.json": [as_bytes(text)]})
    write_json(folder / "manifest.json", {"format": FORMAT, "time": time.time(), "files": facts})


def prune(run: RunDir, keep: int, limit: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints, the oldest first; and what a save put aside.

    With a limit in bytes, as many more as leave room within it for the next one, which is written beside those that
    stay. The newest always does.
    """
    steps = run.saved_steps()
    kept = steps[-keep:]
    sizes = {step: _bytes(run.checkpoints / f"step-{step:08d}") for step in kept} if limit is not None else {}
    while limit is not None and len(kept) > 1 and sum(sizes[step] for step in kept) + sizes[kept[-1]] > limit:
        kept.pop(0)
    for step in steps[: len(steps) - len(kept)]:
        folder = run.checkpoints / f"step-{step:08d}"
        # Under a hidden name first: a kill half-way must not leave a manifest over missing files.
        hidden = folder.with_name(f".pruned-{folder.name}")
        folder.rename(hidden)
    _tidy(run.checkpoints)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _tidy(folder: Path) -> None:
    """Clear what a killed save left, and put back what it had moved aside for a checkpoint that never came."""
    for path in folder.glob(".*"):
        final = folder / path.name.removeprefix(REPLACED)
        if path.name.startswith(REPLACED) and not final.exists():
            path.rename(final)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def newest_valid(run: RunDir) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose every byte is as it was written, and what is wrong with newer ones, in words.

    Those are set aside as `damaged-step-N`: nothing counts on them any more. Raises UserError where checkpoints exist
    and none is sound: beginning again is the user's decision.
    """
    if run.checkpoints.is_dir():
        _tidy(run.checkpoints)
    problems: list[str] = []
    steps = run.saved_steps()
    for step in reversed(steps):
        folder = run.checkpoints / f"step-{step:08d}"
        problem = damage(folder)
        if problem is None:
            for newer in steps[steps.index(step) + 1 :]:
                aside = run.checkpoints / f"damaged-step-{newer:08d}"
                shutil.rmtree(aside, ignore_errors=True)
                (run.checkpoints / f"step-{newer:08d}").rename(aside)
            return read(run, step), problems
        problems.append(f"checkpoint of step {step}: {problem}")
    if steps:
        fix = f"Delete {run.checkpoints} to begin at step 0, then resume."
        raise UserError(Fault(str(run.checkpoints), f"no checkpoint is sound: {'; '.join(problems)}.", fix))
    return None, problems


def read(run: RunDir, step: int) -> Checkpoint:
    """The checkpoint of this step, which somebody has verified."""
    folder = run.checkpoints / f"step-{step:08d}"
    return Checkpoint(folder, json.loads((folder / "state.json").read_text()))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every file has the size and hash of its manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            return f"has format {manifest['format']}, and this hpcft reads {FORMAT}"
        check_files(folder, manifest["files"])
    except Damaged as damaged:
        return str(damaged)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read ({error})"
    return None


def load_weights(checkpoint: Checkpoint, model: LossModel) -> None:
    """Put a checkpoint's weights into the model, in place. Raises UserError if names do not fit."""
    others = set(model.state_dict()) - set(model_tensors(model))  # tied, or not trained
    missing, unexpected = model.load_state_dict(load_file(checkpoint.folder / "model.safetensors"), strict=False)
    if lost := (set(missing) - others) | set(unexpected):
        what = f"does not fit this model: {', '.join(sorted(lost)[:5])}."
        raise UserError(Fault(str(checkpoint.folder), what, "Is it the same one?"))


def load_into(checkpoint: Checkpoint, model: LossModel, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors into model and optimizer, in place. Raises UserError if names do not fit."""
    load_weights(checkpoint, model)
    stored = load_file(checkpoint.folder / "optimizer.safetensors")
    names = dict(model.named_parameters())
    for full, tensor in stored.items():
        key, _, name = full.partition("/")
        parameter = names[name]
        optimizer.state[parameter][key] = tensor.to(parameter.device)
