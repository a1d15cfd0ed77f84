"""Models to use: the final one, and the best so far, as folders for AutoModelForCausalLM.from_pretrained."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from hpcft.disk import sync_files, sync_folder, write_json
from hpcft.rundir import RunDir
from hpcft.train.checkpoint import REPLACED, check_room
from hpcft.train.training import Training


def finish(training: Training) -> None:
    """Write the final model and, last of all, the mark that the run is finished."""
    weights = None
    if training.recipe.train.sharding != "none":
        from hpcft.train.sharding import gather

        weights = gather(training.model, training.control.rank)
    if training.control.rank == 0:
        write_model(training, training.run.final_model, weights)
        facts = {"step": training.position.step, "tokens": training.position.tokens, "job": training.job.number}
        write_json(training.run.path / "finished.json", {**facts, "time": time.time()})
    training.control.wait()


def write_best(training: Training, weights: Mapping[str, Tensor], loss: float, step: int) -> None:
    """Put these weights in the run's best/, with the validation loss that they had, in place of worse ones.

    Raises OSError with nothing changed.
    """
    check_room(training.run.path, sum(tensor.numel() * tensor.element_size() for tensor in weights.values()))
    facts = {"step": step, "validation_loss": loss, "time": time.time()}
    try:
        write_model(training, training.run.best_model, weights, facts)
    except SafetensorError as error:  # what the file system says, in other clothes (safetensors 0.8)
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise


def write_model(
    training: Training,
    folder: Path,
    weights: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, object] | None = None,
) -> None:
    """A folder with model and tokenizer, whole on disk, in place of the one that was there; `facts` go beside them.

    `weights` are the trained ones by their names in LossModel, those of now when not given. Raises OSError.
    """
    writing = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        training.model.write(writing, weights)
        training.tokenizer.save_pretrained(writing)
        if facts:
            write_json(writing / "best.json", dict(facts))
        sync_files(writing)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)  # a full disk must have room for the records of this ending
        raise
    aside = folder.with_name(f"{REPLACED}{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    writing.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def put_back(run: RunDir) -> None:
    """Undo what a kill between two renames has left of a model that was to be replaced."""
    for folder in (run.best_model, run.final_model):
        aside = folder.with_name(f"{REPLACED}{folder.name}")
        if aside.exists() and not folder.exists():
            aside.rename(folder)
