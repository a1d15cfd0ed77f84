"""What `hpcft submit --smoke` trains on: some rows of the recipe's and a tiny model of its architecture.

`python -m hpcft.train.smoke FOLDER`, in the run's env: FOLDER/recipe.json is the recipe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hpcft.data.source import place_of, split_rows
from hpcft.disk import write_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.tasks.labelled import in_order, labels_in
from hpcft.textrows import Row
from hpcft.train.model import UNLOADABLE, load_tokenizer, loading_fault
from hpcft.train.worker import quiet

ROWS = {"train": 64, "validation": 16, "test": 16}
"""Rows of each split that are taken."""
LOOKED_AT = 5_000
"""Rows among which they are chosen, so that a file that is sorted by class gives more than its first."""
LAYERS = 2
SIZES = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "d_model", "embedding_size", "pooler_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "ffn_hidden_size"), 128),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim"), 16),
    "word_embed_proj_dim": 64,
}
"""What the sizes of a config are called, by family, and what they become."""
PER_LAYER = ("layer_types", "attention_layers")
"""Lists with an entry for each layer."""


def main(folder: str) -> int:
    """0 when rows and model are there; 2 for a fault of the user's, which is said."""
    quiet()
    out = Path(folder)
    recipe = Recipe.model_validate_json((out / "recipe.json").read_bytes())
    try:
        rows = {split: take_rows(recipe, split, out / f"{split}.jsonl") for split in ROWS if recipe.data.has(split)}
        for phase, own in zip(recipe.phases, recipe.each_phase(), strict=False):
            for split in ("train", "validation"):
                if getattr(phase.data, split):
                    rows[f"{phase.name}-{split}"] = take_rows(own, split, out / f"{phase.name}-{split}.jsonl")
        model = make_model(recipe, out / "model")
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr)
        return error.exit_code
    taken = {split: len(some) for split, some in rows.items() if split in ROWS}
    write_json(out / "parts.json", {"rows": taken, "labels": labels_of(recipe, rows.values()), **model})
    return 0


def take_rows(recipe: Recipe, split: str, out: Path) -> list[Row]:
    """Some rows of a split, which are now in this file too, under the names that the task has for their columns."""
    rows = choose(list(islice(split_rows(recipe, split), LOOKED_AT)), ROWS[split])
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    out.write_text("".join(lines), encoding="utf-8")
    return rows


def labels_of(recipe: Recipe, splits: Iterable[Sequence[Row]]) -> list[str] | None:
    """The classes of these rows, for a recipe that leaves them to its training rows; None for any other."""
    if not recipe.has_classes or recipe.data.labels is not None or recipe.task == "prefer":
        return None
    place = place_of(recipe, "train")
    return list(in_order(labels_in(chain.from_iterable(splits), place), place))


def choose(rows: Sequence[Row], number: int) -> list[Row]:
    """So many of the rows: each class in turn where they have a label, else evenly spread.

    >>> [row["label"] for row in choose([{"label": label} for label in "aaaab"], 3)]
    ['a', 'b', 'a']
    """
    classes: dict[str, list[Row]] = {}
    for row in rows:
        classes.setdefault(str(row.get("label")), []).append(row)
    if 1 < len(classes) <= number:
        turns = zip_longest(*(classes[label] for label in sorted(classes)))
        return [row for turn in turns for row in turn if row is not None][:number]
    return [rows[index * len(rows) // number] for index in range(number)] if len(rows) > number else list(rows)


def make_model(recipe: Recipe, out: Path) -> dict[str, Any]:
    """{architecture, parameters} of the model that is now in this folder: random, of the recipe's shape but tiny, with
    the recipe's tokenizer. Raises UserError if its config or tokenizer cannot be had, or no such model made."""
    model = recipe.model
    try:
        config = AutoConfig.from_pretrained(model.path, revision=model.revision or "main")
    except UNLOADABLE as error:
        raise UserError(loading_fault("config", model.path, error)) from error
    tokenizer = load_tokenizer(model)
    kind = AutoModel if recipe.has_classes else AutoModelForCausalLM
    torch.manual_seed(0)
    try:
        made = kind.from_config(tiny(config), dtype=torch.float32)  # type: ignore[no-untyped-call]
    except (*UNLOADABLE, TypeError, AssertionError, IndexError) as error:
        what = f"no tiny model of its architecture, {type(config).__name__}, can be made: {error}"
        raise UserError(Fault(model.path, " ".join(what.split()), "Submit it without --smoke.")) from error
    made.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"architecture": type(made).__name__, "parameters": sum(part.numel() for part in made.parameters())}


def tiny(config: Any) -> Any:
    """The config with few layers, heads and columns; vocabulary, positions and all else stay."""
    values = config.to_dict()
    for key, size in SIZES.items():
        if isinstance(values.get(key), int) and not isinstance(values[key], bool):
            values[key] = size
    for key in PER_LAYER:
        if isinstance(values.get(key), list):
            values[key] = values[key][:LAYERS]
    values.pop("quantization_config", None)  # of files in few bits, which these are not
    return type(config).from_dict(values)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
