"""What is wrong with a recipe of a task with labels, as far as it can be known without its rows and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcft.errors import Fault
from hpcft.recipe import TASKS
from hpcft.recipefile import RecipeFile

ONLY = {
    "labels": tuple(name for name, kind in TASKS.items() if kind.classes),
    "separator": ("entail",),
    "pair": ("prefer",),
    "template": ("instruct",),
    "loss_on": ("instruct",),
}
"""Keys of `data` that some tasks alone read; to the others they would say nothing."""
BEFORE_POSITIONS = {
    "bert": 0,
    "distilbert": 0,
    "electra": 0,
    "albert": 0,
    "roberta": 2,
    "xlm-roberta": 2,
    "camembert": 2,
}
"""Encoders with a table of positions, and how many of its lines no token has (RoBERTa counts on from its padding's)."""


def class_faults(file: RecipeFile) -> Iterator[Fault]:
    """The faults of keys that a task does not read, and of labels, grouping and model of a task that has classes."""
    recipe, data = file.recipe, file.recipe.data
    for key, tasks in ONLY.items():
        if recipe.task not in tasks and getattr(data, key) != type(data).model_fields[key].default:
            what = f"data.{key} says nothing to the task {recipe.task}."
            yield Fault(file.where(f"data.{key}"), what, f"It goes with {' and '.join(tasks)}. Remove it.")
    if not recipe.has_classes:
        return
    yield from _label_faults(file)
    if recipe.train.grouping == "packed":
        what = f'train.grouping = "packed": a row of the task {recipe.task} is read as a whole, and lies in no line.'
        yield Fault(file.where("train.grouping"), what, 'Write "bucketed".')
    if recipe.task == "prefer" and recipe.lora:
        what = "lora goes with no head that compares two texts: peft would not know what it belongs to."
        yield Fault(file.where("lora"), what, "Remove it; model.freeze trains a part of the model.")
    if "model" not in file.doubtful:
        yield from _model_faults(file)


def _label_faults(file: RecipeFile) -> Iterator[Fault]:
    labels, where = file.recipe.data.labels, file.where("data.labels")
    if labels is None:
        return
    if len(set(labels)) < 2 or len(set(labels)) < len(labels) or "" in labels:
        yield Fault(where, "data.labels are no classes.", "Write two names or more, all different.")
    elif file.recipe.task == "prefer" and len(labels) > 3:
        what = f"data.labels are {len(labels)}: a verdict is for the first response, for the second, or a tie."
        yield Fault(where, what, "Write two or three, in this order.")


def _model_faults(file: RecipeFile) -> Iterator[Fault]:
    config, length = _config(Path(file.recipe.model.path)), file.recipe.data.max_length
    if config.get("is_encoder_decoder"):
        what = f"{file.recipe.model.path} is an encoder with a decoder, which has no head of classes here."
        yield Fault(file.where("model.path"), what, "Take an encoder (BERT, DeBERTa) or a decoder (GPT-2, Llama).")
    lost, places = BEFORE_POSITIONS.get(str(config.get("model_type"))), config.get("max_position_embeddings")
    if lost is not None and isinstance(places, int) and length > places - lost:
        what = f"data.max_length = {length}: the model has {places - lost} positions (max_position_embeddings)."
        yield Fault(file.where("data.max_length"), what, f"Write {places - lost} at most.")


def _config(model: Path) -> dict[str, Any]:
    """The config.json of a model folder; empty for a hub id, and where it cannot be read."""
    try:
        found = json.loads((model / "config.json").read_bytes()) if model.is_absolute() else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
