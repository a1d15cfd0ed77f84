"""The weights: which files of a model folder hold them, and how many parameters they are, found without torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

FORMS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""One file, or the index of several; transformers takes the first of these that is there."""
FLOATS = ("F64", "F32", "F16", "BF16")
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
    files = weight_files(folder)
    if not files or not all(name.endswith(".safetensors") for name in files):
        return None
    try:
        counts = [_parameters(shape, kind) for name in files for shape, kind in _head(folder / name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if None in counts else sum(count or 0 for count in counts)


def _head(path: Path) -> list[tuple[list[int], str]]:
    """Shape and kind of number of each tensor in a safetensors file: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEAD:
            raise ValueError("no head of a safetensors file")
        head: dict[str, Any] = json.loads(file.read(length))
    return [(entry["shape"], entry["dtype"]) for name, entry in head.items() if name != "__metadata__"]


def _parameters(shape: list[int], kind: str) -> int | None:
    """Numbers of a tensor that training changes; None for packed ones, whose number their shape does not tell."""
    if shape[:2] == [1, 1] and len(shape) == 4:
        return 0  # the causal mask that older files of GPT-2 and its kin carry along
    if kind in FLOATS:
        return math.prod(shape)
    return None if len(shape) > 1 else 0
