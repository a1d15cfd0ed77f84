"""Checkpoints: all that is needed to go on, written as transactions, believed only when their hashes fit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcft.disk import sync_folder, write_json
from hpcft.errors import Fault, UserError
from hpcft.rundir import RunDir
from hpcft.train.blocks import Damaged, Pieces, check_files, size_of, write_files
from hpcft.train.control import Control
from hpcft.train.model import LossModel
from hpcft.train.snapshot import as_sharded, is_sharded
from hpcft.train.tensorfile import Stored, as_bytes, landing, read_header

FORMAT = 2
REPLACED = ".replaced-"
NEEDED = {"model.safetensors", "optimizer.safetensors", "state.json"}
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
        own = tensor.numel() and not is_sharded(tensor)
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


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every file has the size and hash of its manifest."""
    try:
        check_files(folder, _manifest(folder))
    except Damaged as damaged:
        return str(damaged)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read ({error})"
    return None


def newest_valid(
    run: RunDir, check: Callable[[Path], str | None] = damage, control: Control | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint in which `check` finds nothing wrong, and what is wrong with newer ones, in words.

    Those are set aside as `damaged-step-N`: nothing counts on them any more. With `control` every process calls this
    and checks for itself. Raises UserError where checkpoints exist and none is sound: beginning again is the user's
    decision; RuntimeError where processes see different things, which says nothing of the checkpoint.
    """
    first = control is None or control.rank == 0
    if first and run.checkpoints.is_dir():
        _tidy(run.checkpoints)
    steps = run.saved_steps() if first else []
    steps = control.gather(steps)[0] if control else steps
    problems: list[str] = []
    for step in reversed(steps):
        folder = run.checkpoints / f"step-{step:08d}"
        seen = [check(folder)]
        seen = control.gather(seen[0]) if control else seen
        if not any(seen):
            if first:
                _set_aside(run, [newer for newer in steps if newer > step])
            return read(run, step), problems
        if not all(seen):
            raise RuntimeError(f"{folder} is sound for some processes, and for others not: {seen}")
        problems.append(f"checkpoint of step {step}: {seen[0]}")
    if steps:
        fix = f"Delete {run.checkpoints} to begin at step 0, then resume."
        raise UserError(Fault(str(run.checkpoints), f"no checkpoint is sound: {'; '.join(problems)}.", fix))
    return None, problems


def _set_aside(run: RunDir, steps: Sequence[int]) -> None:
    """Keep damaged checkpoints for whoever wants to look at them, but none of an earlier time."""
    if steps:
        for old in run.checkpoints.glob("damaged-step-*"):
            shutil.rmtree(old, ignore_errors=True)
    for step in steps:
        (run.checkpoints / f"step-{step:08d}").rename(run.checkpoints / f"damaged-step-{step:08d}")


def read(run: RunDir, step: int) -> Checkpoint:
    """The checkpoint of this step, which somebody has verified."""
    folder = run.checkpoints / f"step-{step:08d}"
    return Checkpoint(folder, json.loads((folder / "state.json").read_text()))


def load_weights(checkpoint: Checkpoint, model: LossModel) -> None:
    """Put a checkpoint's weights into the model, in place.

    Files are read once: hashed, and put where they belong, a block at a time. Raises UserError if names or shapes do
    not fit; Damaged for what is not as it was written, and the tensors may be anything then.
    """
    _load(checkpoint.folder, {"model": model_tensors(model)})


def load_into(checkpoint: Checkpoint, model: LossModel, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors into model and optimizer, likewise; the optimizer's by their parameters' names."""
    _manifest(checkpoint.folder)  # first: it knows which files there have to be
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    for full, stored in _header(checkpoint.folder, "optimizer").items():
        if (parameter := parameters.get(full.partition("/")[2])) is not None:
            device = "cpu" if is_sharded(parameter) else parameter.device
            state[full] = torch.empty(stored.shape, dtype=stored.dtype, device=device)
    _load(checkpoint.folder, {"model": model_tensors(model), "optimizer": state})
    for full, tensor in state.items():
        key, _, name = full.partition("/")
        count = tensor.dtype == torch.int64 and tensor.ndim == 0  # bitsandbytes counts its steps in a Python int
        optimizer.state[parameters[name]][key] = int(tensor) if count else as_sharded(tensor, parameters[name])


def _load(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Read all files of a checkpoint, and fill the tensors of these. Raises UserError, Damaged."""
    headers = {file: _header(folder, file) for file in files}
    wrong = {
        name
        for file, tensors in files.items()
        for name in tensors.keys() | headers[file].keys()
        if not _fits(headers[file].get(name), tensors.get(name))
    }
    if wrong:
        if words := damage(folder):
            raise Damaged(words)
        what = f"does not fit this model: {', '.join(sorted(wrong)[:5])}."
        raise UserError(Fault(str(folder), what, "Is it the same one?"))
    sinks, landed = {}, []
    for file, tensors in files.items():
        targets = {}
        for name, tensor in tensors.items():
            straight = tensor.is_contiguous() and not is_sharded(tensor)
            targets[name] = tensor if straight else torch.empty(tensor.shape, dtype=tensor.dtype)
            if not straight:
                landed.append((tensor, targets[name]))
        sinks[f"{file}.safetensors"] = landing(headers[file], targets)
    try:
        check_files(folder, _manifest(folder), sinks)
    except OSError as error:
        raise Damaged(f"cannot be read ({error})") from error
    for tensor, full in landed:
        tensor.copy_(as_sharded(full, tensor))


def _fits(stored: Stored | None, tensor: Tensor | None) -> bool:
    if stored is None or tensor is None:
        return False
    return stored.dtype == tensor.dtype and stored.shape == tuple(tensor.shape)


def _header(folder: Path, file: str) -> dict[str, Stored]:
    try:
        return read_header(folder / f"{file}.safetensors")
    except OSError as error:
        raise Damaged(f"cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{file}.safetensors is not what was written") from error


def _manifest(folder: Path) -> dict[str, Any]:
    """The files of a checkpoint, with their sizes and hashes. Raises Damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise Damaged(f"has format {manifest['format']}, and this hpcft reads {FORMAT}")
        files: dict[str, Any] = manifest["files"]
        if missing := NEEDED - files.keys():
            raise Damaged(f"has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"cannot be read ({error})") from error
    return files
