"""The weights: which files of a model folder hold them, and how many parameters they are, found without torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # an env that lacks what recipes need fetches models too
    from hpcft.recipe import Recipe

FORMS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""One file, or the index of several; transformers takes the first of these that is there."""
FLOATS = ("F64", "F32", "F16", "BF16")
LAYER = re.compile(r"\.(\d+)\.")
"""In the name of a tensor: the number of the layer that it belongs to."""
LARGEST_HEAD = 100 << 20
"""Bytes; safetensors itself reads no head that is longer."""


def weight_files(folder: Path) -> list[str]:
    """Names of the files that the weights are in, whether or not all of them are there; none where nothing tells."""
    for single, index in FORMS:
        if (folder / single).exists():
            return [single]
        if (folder / index).exists():
            return sorted(set(shards(folder / index)))
    return []


def shards(index: Path) -> list[str]:
    """Names in an index of weights; none if it is no index."""
    try:
        return [str(name) for name in json.loads(index.read_bytes())["weight_map"].values()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def count_parameters(folder: Path) -> int | None:
    """Parameters of the model in this folder, from the heads of its safetensors files; None where they do not tell.

    Files of another format keep the shapes in a pickle, and packed weights (4 and 8 bits) do not show them.
    """
    tensors = _tensors(folder)
    counts = [_parameters(shape, kind) for _, shape, kind in tensors or ()]
    return None if tensors is None or None in counts else sum(count or 0 for count in counts)


def count_trained(folder: Path, recipe: Recipe) -> int | None:
    """Parameters that a checkpoint holds, at most: adapters on every matrix of the layers, or all that is not in a
    frozen layer; None where the files do not tell."""
    model, lora, total = recipe.model, recipe.lora, 0
    for name, shape, kind in _tensors(folder) or ():
        count, layer = _parameters(shape, kind), LAYER.search(name)
        if lora:
            parts = 3 if "c_attn" in name else 1  # of a fused projection that is taken apart
            total += lora.rank * sum(shape) * parts if layer and len(shape) == 2 else 0
        elif count is None:
            return None
        elif not layer or model.freeze == "none" or (model.freeze != "body" and int(layer[1]) >= model.freeze):
            total += count
    return total or None


def _tensors(folder: Path) -> list[tuple[str, list[int], str]] | None:
    """Name, shape and kind of number of all tensors of a model folder; None where its files do not tell."""
    files = weight_files(folder)
    if not files or not all(name.endswith(".safetensors") for name in files):
        return None
    try:
        return [tensor for name in files for tensor in _head(folder / name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _head(path: Path) -> list[tuple[str, list[int], str]]:
    """Name, shape and kind of number of each tensor in a safetensors file: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEAD:
            raise ValueError("no head of a safetensors file")
        head: dict[str, Any] = json.loads(file.read(length))
    return [(name, entry["shape"], entry["dtype"]) for name, entry in head.items() if name != "__metadata__"]


def _parameters(shape: list[int], kind: str) -> int | None:
    """Numbers of a tensor that training changes; None for packed ones, whose number their shape does not tell."""
    if shape[:2] == [1, 1] and len(shape) == 4:
        return 0  # the causal mask that older files of GPT-2 and its kin carry along
    if kind in FLOATS:
        return math.prod(shape)
    # Older encoders carry the numbers of their positions along, in one line.
    return None if len(shape) > 1 and not (shape[0] == 1 and kind in ("I64", "I32")) else 0
