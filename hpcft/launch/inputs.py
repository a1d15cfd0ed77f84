"""The inputs: the recipe against itself and the files it names, as far as that needs no torch."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from hpcft.errors import Fault
from hpcft.launch import rowcheck
from hpcft.launch.classcheck import class_faults
from hpcft.launch.inputphases import in_phases, phase_faults
from hpcft.recipefile import RecipeFile

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""Under which of these a config.json says how many layers there are, by family."""


def recipe_faults(file: RecipeFile) -> Iterator[Fault]:
    """What is wrong with the recipe and the files it names, as far as it can be known without torch."""
    yield from value_faults(file)
    if not file.doubtful & {"data", "task"}:
        yield from data_faults(file)


def value_faults(file: RecipeFile) -> Iterator[Fault]:
    """What is wrong with the values among themselves, with the model, and with whom to tell: all but the rows."""
    yield from phase_faults(file)
    yield from in_phases(file, _value_faults)


def data_faults(file: RecipeFile) -> Iterator[Fault]:
    """What is wrong with the files of rows, and with the template."""
    yield from in_phases(file, rowcheck.data_faults)


def _value_faults(file: RecipeFile) -> Iterator[Fault]:
    if not file.doubtful & {"train", "resources", "phases"}:
        yield from _train_faults(file)
    if not file.doubtful & {"evaluate", "data", "task"}:
        yield from _evaluate_faults(file)
    if "model" not in file.doubtful:
        yield from _model_faults(file)
        yield from _adaptation_faults(file)
    if not file.doubtful & {"data", "task", "train", "lora"}:
        yield from class_faults(file)
    if "notify" not in file.doubtful:
        yield from _notify_faults(file)


def _train_faults(file: RecipeFile) -> Iterator[Fault]:
    recipe, train = file.recipe, file.recipe.train
    if (train.steps is None) == (train.epochs is None):
        have = "both train.steps and train.epochs are" if train.steps else "neither train.steps nor train.epochs is"
        yield Fault(file.where("train"), f"{have} given.", "Write one of the two.")
    if recipe.resources.processes and recipe.resources.gpus:
        what = f"resources.processes = {recipe.resources.processes} goes with `gpus: 0`; each GPU has one process."
        yield Fault(file.where("resources.processes"), what, "Remove it, or write `gpus: 0`.")
    unit = (1 if train.micro_batch_size == "auto" else train.micro_batch_size) * recipe.processes
    if (train.batch_size is None) == (train.batch_tokens is None):
        have = "both train.batch_size and train.batch_tokens are"
        if train.batch_size is None:
            have = "neither train.batch_size nor train.batch_tokens is"
        yield Fault(file.where("train"), f"{have} given.", "Write one of the two.")
    elif train.batch_tokens and "data" not in file.doubtful and train.batch_tokens < unit * recipe.data.max_length:
        what = f"train.batch_tokens = {train.batch_tokens} is less than micro_batch_size x processes x data.max_length"
        what += f" = {unit * recipe.data.max_length}, so that some processes would have nothing to do."
        yield Fault(file.where("train.batch_tokens"), what, "Write that at least, or lower one of the three.")
    elif train.batch_size and train.batch_size % unit:
        what = f"train.batch_size = {train.batch_size} is no multiple of micro_batch_size x processes = {unit}."
        yield Fault(file.where("train.batch_size"), what, f"Write {max(1, train.batch_size // unit) * unit}.")
    if train.precision == "fp16" and not recipe.resources.gpus:
        yield Fault(file.where("train.precision"), 'train.precision = "fp16" needs a GPU.', 'Use "fp32".')
    if train.steps and train.warmup_steps >= train.steps:
        what = f"train.warmup_steps = {train.warmup_steps} leaves none of the {train.steps} steps to fall."
        yield Fault(file.where("train.warmup_steps"), what, f"Write {train.steps - 1} at most.")
    yield from _sharding_faults(file)


def _sharding_faults(file: RecipeFile) -> Iterator[Fault]:
    recipe, train = file.recipe, file.recipe.train
    where, sharding = file.where("train.sharding"), f'train.sharding = "{train.sharding}"'
    if train.sharding == "none":
        if train.offload:
            what = 'train.offload puts into the host\'s memory what is sharded, and train.sharding = "none".'
            yield Fault(file.where("train.offload"), what, 'Write "zero2" or "full" there, or remove train.offload.')
        return
    if train.offload and not recipe.resources.gpus:
        yield Fault(file.where("train.offload"), "train.offload needs a GPU to take the load off.", "Remove it.")
    if recipe.processes == 1 and not train.offload:
        what = f"{sharding} shares among processes, and there is one."
        yield Fault(where, what, "Write `offload: true` beside it, or remove it, or ask for more GPUs.")
    if train.optimizer == "adamw-8bit":
        what = f'{sharding}: train.optimizer = "adamw-8bit" quantises blocks that a shard would cut.'
        yield Fault(where, what, 'Use "adamw", whose moments are shared then, or remove train.sharding.')
    if recipe.lora is not None or recipe.model.quantize is not None or recipe.model.freeze != "none":
        key = "lora" if recipe.lora else "model.quantize" if recipe.model.quantize else "model.freeze"
        what = f"{sharding} is for training all weights, and {key} is given."
        yield Fault(where, what, "Remove it: what is not trained needs neither gradients nor moments.")


def _evaluate_faults(file: RecipeFile) -> Iterator[Fault]:
    evaluate, data = file.recipe.evaluate, file.recipe.data
    if evaluate.every and not data.has("validation"):
        what = f"evaluate.every = {evaluate.every} needs data.validation."
        yield Fault(file.where("evaluate.every"), what, "Name a file there, or remove it.")
    yield from _generate_faults(file)
    if evaluate.choices is None:
        return
    where = file.where("evaluate.choices")
    if file.recipe.task != "instruct":
        yield Fault(where, "evaluate.choices goes with the task instruct.", "Remove it.")
    elif not data.has("test"):
        yield Fault(where, "evaluate.choices needs data.test.", "Name a file of held-out rows there.")
    if len(set(evaluate.choices)) < 2 or len(set(evaluate.choices)) < len(evaluate.choices) or "" in evaluate.choices:
        yield Fault(where, "evaluate.choices is no choice.", "Write two completions or more, all different.")


def _generate_faults(file: RecipeFile) -> Iterator[Fault]:
    generate, where = file.recipe.evaluate.generate, file.where("evaluate.generate")
    if generate is None:
        return
    if file.recipe.evaluate.choices is None:
        what = "evaluate.generate has no labels to look for in what the model writes."
        yield Fault(where, what, "Write them as evaluate.choices.")
    if not generate.temperature and (generate.top_k or generate.top_p):
        key = "evaluate.generate.top_k" if generate.top_k else "evaluate.generate.top_p"
        what = f"{key} is for drawing, and temperature is 0, which draws nothing."
        yield Fault(file.where(key), what, "Write `temperature: 1.0` beside it, or remove it.")
    places = _shape(Path(file.recipe.model.path), "n_positions", "max_position_embeddings")
    if places and generate.max_new_tokens >= places:
        key = "evaluate.generate.max_new_tokens"
        what = f"{key} = {generate.max_new_tokens}: the model has {places} positions."
        yield Fault(file.where(key), what, "Leave most of them to the prompt.")


def _model_faults(file: RecipeFile) -> Iterator[Fault]:
    path = Path(file.recipe.model.path)
    if not path.is_absolute():
        return  # a hub id: the job will find out; or another run, which the plan has looked for
    where, fix = file.where("model.path"), "Name a folder that save_pretrained has made, or a hub id, owner/name."
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a folder that may not be entered
        yield Fault(where, f"{path} is no folder.", fix)
    elif not os.access(path / "config.json", os.R_OK):
        yield Fault(where, f"{path} is no model folder: it has no config.json.", fix)
    elif (
        "data" not in file.doubtful and (places := _shape(path, "n_positions")) and file.recipe.data.max_length > places
    ):
        what = f"data.max_length = {file.recipe.data.max_length}: the model has {places} positions (n_positions)."
        yield Fault(file.where("data.max_length"), what, f"Write {places} at most.")


def _shape(model: Path, *names: str) -> int | None:
    """What the config.json of a model folder says under the first of these names; None where it does not."""
    try:
        config = json.loads((model / "config.json").read_bytes())
        found = [config[name] for name in names if name in config]
    except (OSError, ValueError, TypeError):
        return None  # the job will say what is wrong with it
    return found[0] if found and isinstance(found[0], int) else None


def _adaptation_faults(file: RecipeFile) -> Iterator[Fault]:
    """What does not go together in which weights there are, and which of them are trained."""
    recipe, model = file.recipe, file.recipe.model
    freeze, lora = file.where("model.freeze"), recipe.lora
    if "lora" in file.doubtful:
        return
    if model.quantize and not lora:
        what = f'model.quantize = "{model.quantize}" needs lora: weights in so few bits are not trained themselves.'
        yield Fault(file.where("model.quantize"), what, "Add `lora: {}`, or remove it.")
    if lora and model.freeze != "none":
        yield Fault(freeze, "model.freeze and lora are both given: lora freezes the model.", "Remove one of the two.")
    if lora and model.weights == "random":
        what = 'model.weights = "random" with lora: the weights below the adapters would stay as they were drawn.'
        yield Fault(file.where("model.weights"), what, "Remove one of the two.")
    if lora and lora.targets == ():
        yield Fault(
            file.where("lora.targets"), "lora.targets is empty.", "Name modules, or remove it for the usual ones."
        )
    if not model.path.startswith("/"):
        return  # a hub id: the job will find out
    if model.freeze == "body" and not recipe.has_classes and _shape(Path(model.path), "tie_word_embeddings"):
        what = 'model.freeze = "body": the head of this model is its input embedding, so nothing is left to train.'
        yield Fault(freeze, what, "Freeze a number of layers, or use lora.")
    # An ALBERT has one layer, which it goes through again and again.
    layers = _shape(Path(model.path), "num_hidden_groups", *LAYERS)
    if layers and isinstance(model.freeze, int) and model.freeze > layers:
        yield Fault(
            freeze, f"model.freeze = {model.freeze}: the model has {layers} layers.", f"Write {layers} at most."
        )


def _notify_faults(file: RecipeFile) -> Iterator[Fault]:
    words = shlex.split(file.recipe.notify.command or "")
    if words and "/" in words[0] and not os.access(words[0], os.X_OK):  # a name is looked for on the job's own PATH
        yield Fault(file.where("notify.command"), f"{words[0]} is no program that can be run.", "Make it executable.")
