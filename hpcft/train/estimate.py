"""The estimate: what a recipe takes of a card, and where that is too much, settings that fit, the cheapest first.

`python -m hpcft.train.estimate RECIPE.json [GiB of a card]` prints what `estimate` gives, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from hpcft.errors import UserError
from hpcft.recipe import Recipe
from hpcft.sections import Lora
from hpcft.train.blueprint import Measure, measure, step_of

USABLE = 0.92
"""Of a card: the rest is CUDA's and NCCL's own, and gaps between blocks."""
WORKSPACE = 32 << 20
"""Bytes of cuBLAS: what CUBLAS_WORKSPACE_CONFIG = :4096:8 asks for."""
GIB = 1 << 30
SHOWN = 2
"""Settings that are named."""
COST = {"micro_batch_size": 0.04, "gradient_checkpointing": 0.33, "adamw-8bit": 0.4, "zero2": 0.15, "full": 0.4}
"""By which a step becomes longer, roughly, for the order alone; a micro-batch counts for each halving, and 8 bits for
more than their time, since they change what is learnt."""
OFFLOAD = 3.0
LORA = 5.0
"""Last: it learns something else."""
BYTES = {"int8": 1.01, "nf4": 0.57}
"""Of a quantised weight, with the scales of its block."""


def sizes(recipe: Recipe) -> list[int]:
    """Micro-batches that make up the recipe's batch, the largest first."""
    train = recipe.train
    if train.batch_size is None:
        most = (train.batch_tokens or 0) // (recipe.data.max_length * recipe.processes)
        return list(range(max(1, most), 0, -1))
    share = train.batch_size // recipe.processes
    return [size for size in range(share, 0, -1) if share % size == 0]


def largest(recipe: Recipe, card: float) -> int | None:
    """Rows of the largest micro-batch that has room on a card of so many bytes; None if not even one row has."""
    return next((rows for rows in sizes(recipe) if fits(recipe, rows, card)), None)


def estimate(recipe: Recipe, card: float | None) -> dict[str, Any]:
    """{rows, parts, total, host, parameters, fits, settings}, in bytes; `card` is in GiB. Raises UserError.

    Of a recipe with phases, what the one takes that takes most.
    """
    return max((_estimate(each, card) for each in recipe.each_phase()), key=lambda found: int(found["total"]))


def _estimate(recipe: Recipe, card: float | None) -> dict[str, Any]:
    limit = card * GIB if card else None
    asked = recipe.train.micro_batch_size
    rows: int | None = None if asked == "auto" else asked
    if rows is None:
        rows = (largest(recipe, limit) if limit else None) or 1
    made = parts(recipe, rows)
    fit = limit is None or fits(recipe, rows, limit)
    return {
        "rows": rows,
        "parts": made,
        "total": sum(made.values()),
        "host": host_bytes(recipe, rows),
        "parameters": measure(step_of(recipe, rows)).parameters,
        "fits": fit,
        "settings": [] if fit or limit is None else list(settings(recipe, limit)),
    }


def settings(recipe: Recipe, limit: float) -> Iterator[dict[str, Any]]:
    """{set, total, host} of the cheapest settings that fit, each unlike the ones before in more than its rows."""
    found: list[set[str]] = []
    for _, changes in sorted(candidates(recipe), key=lambda each: each[0]):
        kinds = {f"{key}={value}" for key, value in changes.items() if key != "train.micro_batch_size"}
        if any(earlier <= kinds for earlier in found):
            continue
        other = changed(recipe, changes)
        rows = int(changes["train.micro_batch_size"])
        if not fits(other, rows, limit):
            continue
        found.append(kinds)
        mine = {key: value for key, value in changes.items() if value != current(recipe, key)}
        total = sum(parts(other, rows).values())
        yield {
            "set": [f"{key}={str(value).lower()}" for key, value in mine.items()],
            "total": total,
            "host": host_bytes(other, rows),
        }
        if len(found) == SHOWN:
            return


def candidates(recipe: Recipe) -> Iterator[tuple[float, dict[str, Any]]]:
    """(cost, changes) of everything that might save memory on a GPU, of what the recipe does not do already."""
    train = recipe.train
    whole = recipe.lora is None and recipe.model.freeze == "none" and recipe.model.quantize is None
    again = [True] if train.gradient_checkpointing else [False, True]
    most = sizes(recipe)[0] if train.micro_batch_size == "auto" else train.micro_batch_size
    rows = [size for size in sizes(recipe) if size <= most]
    shared = [("none", False)]
    if whole:
        shared += [(kind, True) for kind in ("zero2", "full")]
        shared += [(kind, False) for kind in ("zero2", "full") if recipe.processes > 1]
    for number, checkpointing, optimizer, (sharding, offload) in product(rows, again, ("adamw", "adamw-8bit"), shared):
        if optimizer == "adamw-8bit" and sharding != "none":
            continue
        cost = COST["micro_batch_size"] * (most / number - 1) ** 0.5 + COST["gradient_checkpointing"] * checkpointing
        cost += COST.get(optimizer, 0.0) + COST.get(sharding, 0.0) + OFFLOAD * offload
        changes: dict[str, Any] = {"train.micro_batch_size": number, "train.gradient_checkpointing": checkpointing}
        changes |= {"train.optimizer": optimizer, "train.sharding": sharding, "train.offload": offload}
        yield cost, changes
        if whole and optimizer == "adamw" and sharding == "none" and recipe.model.weights == "pretrained":
            yield cost + LORA, {**changes, "lora": {}}


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with these."""
    update = {key.removeprefix("train."): value for key, value in changes.items() if key.startswith("train.")}
    lora = Lora() if "lora" in changes else recipe.lora
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=update), "lora": lora})


def current(recipe: Recipe, key: str) -> Any:
    """The recipe's own value of a key that a setting may change."""
    return recipe.lora if key == "lora" else getattr(recipe.train, key.removeprefix("train."))


def parts(recipe: Recipe, rows: int) -> dict[str, int]:
    """Bytes on one card by part, for this micro-batch: what they are when their sum is largest."""
    found = measure(step_of(recipe, rows))
    moments = moment_bytes(recipe, found)
    if kind := recipe.model.quantize:
        less = int((2 - BYTES[kind]) * (found.layers - found.trained))
        found = replace(found, peak=found.peak | {"weights": found.peak["weights"] - less})
    sharding, ranks = recipe.train.sharding, recipe.processes
    if sharding == "none":
        made = {**found.peak, "moments": moments}
    else:
        made = _shared(recipe, found, ranks, moments)
    if recipe.resources.gpus:
        made["workspace"] = WORKSPACE
    return {key: value for key, value in made.items() if value}


def moment_bytes(recipe: Recipe, found: Measure) -> int:
    """Of all trained weights; in 8 bits each block of 256 has a scale in fp32 besides (bitsandbytes)."""
    if recipe.train.optimizer == "adamw":
        return 8 * found.trained
    large = found.trained - found.small
    return 8 * found.small + 2 * large + 2 * 4 * large // 256


def _shared(recipe: Recipe, found: Measure, ranks: int, moments: int) -> dict[str, int]:
    """With FSDP: each card holds its share, and gathers layers in the precision they compute in."""
    train = recipe.train
    width = 4 if train.precision == "fp32" else 2
    rest = found.parameters - found.layers
    gathered = found.layers if train.sharding == "zero2" else 2 * found.layer  # the next one comes while one computes
    own = 0 if train.offload else 1
    return {
        "weights": own * 4 * found.parameters // ranks,
        "gradients": own * 4 * found.trained // ranks,
        "moments": own * moments // ranks,
        "gathered": width * gathered + 4 * rest,
        # One layer's gradient, or that of embeddings and head, before it is shared, and beside it what is sent.
        "to share": max((width + 4) * found.layer, 8 * rest),
        "copies": 0 if train.precision == "fp32" else 2 * rest,
        "logits": found.peak["logits"],
        "activations": found.peak["activations"],
    }


def host_bytes(recipe: Recipe, rows: int) -> int:
    """Of the host's memory that one process takes for what is offloaded."""
    if not recipe.train.offload:
        return 0
    found = measure(step_of(recipe, rows))
    return (4 * found.parameters + 4 * found.trained + moment_bytes(recipe, found)) // recipe.processes


def fits(recipe: Recipe, rows: int, card: float) -> bool:
    """Whether this micro-batch has room on a card of so many bytes."""
    return sum(parts(recipe, rows).values()) <= USABLE * card


def main(path: str, card: str | None = None) -> int:
    """0 and the estimate on stdout, 2 and why there is none."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        answer = estimate(Recipe.model_validate_json(Path(path).read_text()), float(card) if card else None)
    except UserError as error:
        print(json.dumps({"fault": error.faults[0].what}))
        return error.exit_code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
