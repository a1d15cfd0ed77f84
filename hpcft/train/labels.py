"""The classes of a run: those that its recipe names, else those of its training rows, found once."""

from __future__ import annotations

from hpcft.data.source import named_rows, place_of
from hpcft.disk import read_json, write_json
from hpcft.errors import UserError
from hpcft.recipe import VERDICTS, Recipe
from hpcft.rundir import RunDir
from hpcft.tasks.labelled import in_order, labels_in
from hpcft.train.control import Control, Stop


def labelled(run: RunDir) -> Recipe:
    """The run's recipe with its classes, as far as they are known: of a run whose first job has begun they are."""
    recipe = run.recipe
    if not recipe.has_classes or recipe.data.labels is not None:
        return recipe
    found = VERDICTS if recipe.task == "prefer" else (read_json(run.path / "labels.json") or {}).get("labels")
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": found and tuple(found)})})


def find_classes(run: RunDir, control: Control) -> Recipe:
    """The run's recipe with its classes; rank 0 looks for them in the first job, and writes them down.

    Raises UserError: a training row has no label, or all have the same; Stop on the other processes then.
    """
    recipe = labelled(run)
    if not recipe.has_classes or recipe.data.labels is not None:
        control.share(2)
        return recipe
    if control.rank == 0:
        try:
            write_json(run.path / "labels.json", {"labels": classes_of(recipe)})
        except UserError:
            control.share(1)
            raise
    if control.share(2) == 1:
        raise Stop
    return labelled(run)


def classes_of(recipe: Recipe) -> tuple[str, ...]:
    """Of all training rows of the source, drawn or not, and of every phase. Raises UserError: a row has no label."""
    found: set[str] = set()
    lenient = bool(recipe.data.filter and recipe.data.filter.empty)
    sources = {place_of(each, "train"): each for each in recipe.each_phase()}
    for place, each in sources.items():
        found |= labels_in(named_rows(each, "train"), place, lenient=lenient)
    return in_order(found, next(iter(sources)))
