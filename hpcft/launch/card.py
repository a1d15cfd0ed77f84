"""The card: what training takes of its memory, as the run's own env reckons it without loading the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hpcft
from hpcft.disk import read_json
from hpcft.errors import Fault
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.hub import model_folder
from hpcft.launch.room import GIB, gibibytes, millions
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile

PATIENCE = 300
"""Seconds for torch and transformers to be imported, and a step to be run without data some ten times."""
MOMENTS = {"adamw": 8, "adamw-8bit": 2}
"""Bytes of each trained parameter."""
FROZEN = {None: 2.0, "int8": 1.0, "nf4": 0.5}
"""Bytes at least of each parameter that is not trained, by model.quantize."""
WAITING = "hpcft: estimating the card's memory, which takes some seconds ..."


def least_bytes(recipe: Recipe, parameters: int) -> int:
    """The least that training takes on each card: what goes with the parameters; activations come on top."""
    train = recipe.train
    if recipe.lora is not None or recipe.model.freeze != "none":
        return int(parameters * FROZEN[recipe.model.quantize])
    copy = 0 if train.precision == "fp32" else 2
    state = 4 + 4 + MOMENTS[train.optimizer]
    if train.sharding == "none":
        return parameters * (state + (0 if train.gradient_checkpointing else copy))
    share = 0 if train.offload else state * parameters // recipe.processes
    return share + (parameters * (copy or 4) if train.sharding == "zero2" else 0)


def card_fault(file: RecipeFile, cluster: Cluster, parameters: int) -> Fault | None:
    """That the parameters alone overfill a card, if they do."""
    recipe, least = file.recipe, least_bytes(file.recipe, parameters)
    if not recipe.resources.gpus or not cluster.gpu_memory or least <= cluster.gpu_memory * GIB:
        return None
    shared = f", shared by {recipe.processes}" if recipe.train.sharding != "none" and recipe.processes > 1 else ""
    what = (
        f"{millions(parameters)} parameters take {gibibytes(least)} with their gradients and AdamW's moments{shared}, "
        f"and a {cluster.gpu or 'card'} of {cluster.name} has {cluster.gpu_memory:g}."
    )
    fix = "Choose a smaller model, or a cluster with larger cards; `--dry-run` names settings that fit, if any do."
    return Fault(file.where("model.path"), what, fix)


def card_estimate(recipe: Recipe, cluster: Cluster, env: Env) -> dict[str, Any] | str:
    """What `hpcft.train.estimate` gives, run by the env's python; or why there is nothing, in words."""
    folder = model_folder(cluster, recipe.model)
    if folder is None:
        return "the model is not here yet"
    if "model_type" not in (read_json(folder / "config.json") or {}):
        return "its config.json names no model_type"
    here = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(folder), "revision": None})})
    command = [str(env.python), "-m", "hpcft.train.estimate", "/dev/stdin"]
    command += [str(cluster.gpu_memory)] if cluster.gpu_memory else []
    own = {
        "PYTHONPATH": str(Path(hpcft.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    wait = sys.stderr.isatty()
    if wait:
        print(WAITING, end="", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command,
            input=here.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | own,
        )
    except subprocess.TimeoutExpired:
        return f"the env {env.prefix} is silent for {PATIENCE} s"
    finally:
        if wait:
            print(f"\r{' ' * len(WAITING)}\r", end="", file=sys.stderr, flush=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"the env {env.prefix} cannot estimate it: {words[-1].strip()}"
    return str(answer["fault"]) if "fault" in answer else answer


def card_lines(recipe: Recipe, cluster: Cluster, found: dict[str, Any]) -> Iterator[str]:
    """The estimate in words, and settings that fit where the recipe's own do not."""
    of = f" of {cluster.gpu_memory:g}" if cluster.gpu_memory else ""
    rows = f" with micro_batch_size {found['rows']}" if recipe.train.micro_batch_size == "auto" else ""
    parts = ", ".join(f"{part} {size / GIB:.1f}" for part, size in found["parts"].items() if size >= GIB / 20)
    yield f"{gibibytes(found['total'])}{of} a card, estimated{rows}: {parts}"
    if found["host"]:
        yield f"and {gibibytes(found['host'])} of the host's for each process"
    if found["fits"]:
        return
    if not found["settings"]:
        yield "it does not fit, and no setting of train makes it: lora, a smaller model or data.max_length would"
        return
    yield "it does not fit; these settings do, by the same estimate:"
    for setting in found["settings"]:
        host = f", and {gibibytes(setting['host'])} of the host's" if setting["host"] else ""
        yield f"{' '.join(f'--set {word}' for word in setting['set'])}  ({gibibytes(setting['total'])}{host})"
