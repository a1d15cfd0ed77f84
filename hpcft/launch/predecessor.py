"""A model that another run has left: found when a recipe is submitted, and kept by the run that begins with it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.recipefile import OF_RUN, RecipeFile
from hpcft.rundir import RunDir, find_run

FOLDER = "begins-with"
"""Where a run has the files of the model that it begins with, if another run has left them."""
WHICH = ("model", "best")


def with_model_of_run(file: RecipeFile, root: Path) -> RecipeFile:
    """The recipe with the folder of the model in place of `run:NAME`. Raises UserError: there is none to begin with."""
    path = file.recipe.model.path
    if not path.startswith(OF_RUN):
        return file
    name, _, which = path.removeprefix(OF_RUN).partition("/")
    where, which = file.where("model.path"), which or "model"
    if which not in WHICH:
        raise UserError(Fault(where, f'model.path = "{path}": a run leaves no "{which}".', f"Write run:{name}/best."))
    try:
        run = find_run(root, name)
    except UserError as error:
        raise UserError(
            [replace(fault, where=where, what=f'"{name}" {fault.what}') for fault in error.faults]
        ) from None
    folder = run.final_model if which == "model" else run.best_model
    if not folder.is_dir() or (which == "model" and not run.finished):
        raise UserError(_nothing_left(where, run, which))
    if not (folder / "config.json").exists():  # of adapters that lie beside a model
        what = f"{run.name} has left adapters, and no whole model."
        raise UserError(Fault(where, what, f"`hpcft export {run.name} FOLDER` makes one: name that folder."))
    model = file.recipe.model.model_copy(update={"path": str(folder)})
    return replace(file, recipe=file.recipe.model_copy(update={"model": model}))


def _nothing_left(where: str, run: RunDir, which: str) -> Fault:
    if which == "best":
        return Fault(where, f"{run.name} has no best/.", "train.keep_best makes one at each better evaluation.")
    fix = f"Wait for it, or take a checkpoint with `hpcft export {run.name} FOLDER --checkpoint STEP`."
    return Fault(where, f"{run.name} is not finished, and has left no model yet.", fix)


def is_of_run(path: Path, root: Path) -> bool:
    """Whether this is a model that a run in this folder has left."""
    return path.name in WHICH and path.parent.parent == root and (path.parent / "recipe.json").is_file()


def keep(source: Path, folder: Path) -> None:
    """Put the files of a model into a folder of one's own: the same bytes on disk where there are hard links.

    The run that has left them may be removed then. Raises OSError.
    """
    folder.mkdir(mode=0o700)
    for path in sorted(source.iterdir()):
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
