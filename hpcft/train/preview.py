"""`hpcft data show`: rows as the model will see them. `python -m hpcft.train.preview RECIPE.json SPLIT ROWS STORE`.

It runs in the recipe's env, prints one JSON object, and trains nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcft.data.features import Feature
from hpcft.data.source import chosen_rows, in_source, place_of, selection_of
from hpcft.errors import UserError
from hpcft.recipe import Recipe
from hpcft.tasks.task import make_task
from hpcft.tasks.tokenize import check_tokenizer
from hpcft.train.model import load_tokenizer

LOOKED_AT = 2000
"""Rows that the figures are of, the first of the split."""
UNCUT = 1 << 24
"""Tokens of a row before any cut."""
PERCENTILES = (50, 90, 99, 100)


def preview(recipe: Recipe, split: str, shown: int, store: Path | None) -> dict[str, Any]:
    """{place, rows, chosen, shown, learnt, lengths, cut, ...} of the first rows of a split, `shown` of them as text.

    Raises UserError for rows that the first job would refuse, but for completions that are cut off entirely, which are
    counted.
    """
    tokenizer = load_tokenizer(recipe.model)
    check_tokenizer(tokenizer, recipe.model.path)
    selection, place = selection_of(recipe, split, store, tokenizer), place_of(recipe, split)
    rows = islice(chosen_rows(recipe, split, selection), LOOKED_AT)
    blocks, limit = recipe.task == "corpus", recipe.data.max_length
    whole = recipe if blocks else _uncut(recipe)
    try:
        found = list(_features(whole, tokenizer, rows, place))
    except UserError as error:
        raise in_source(error, place, selection) from None
    lengths = np.array([len(feature.tokens) for feature in found])
    kept = [Feature(feature.tokens[:limit], feature.trained[:limit]) for feature in found]
    learnt = [sum(feature.trained[1:]) for feature in kept]
    return {
        "place": str(place),
        "blocks": blocks,
        "looked_at": len(found),
        "chosen": selection.words() if selection else None,
        "max_length": limit,
        "shown": [_pieces(tokenizer, feature, limit) for feature in found[:shown]],
        "learnt": sum(learnt) / max(1, sum(len(feature.tokens) for feature in kept)),
        "lengths": {str(percent): int(np.percentile(lengths, percent, method="higher")) for percent in PERCENTILES},
        "cut_rows": int((lengths > limit).sum()),
        "cut_tokens": int(np.maximum(0, lengths - limit).sum()),
        "tokens": int(lengths.sum()),
        "unlearnt_rows": learnt.count(0),
    }


def _uncut(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_length": UNCUT})})


def _features(recipe: Recipe, tokenizer: Any, rows: Iterator[Any], place: Path) -> Iterator[Feature]:
    for chunk in make_task(recipe, tokenizer).chunks(rows, place):
        yield from chunk.features


def _pieces(tokenizer: Any, feature: Feature, limit: int) -> list[tuple[str, str]]:
    """The text of a row in stretches, each `prompt`, `learnt` or `cut`."""
    kinds = [
        "cut" if place >= limit else "learnt" if place and trained else "prompt"
        for place, trained in enumerate(feature.trained)
    ]
    pieces = []
    for kind, stretch in groupby(zip(feature.tokens, kinds, strict=True), key=lambda pair: pair[1]):
        pieces.append((kind, tokenizer.decode([token for token, _ in stretch])))
    return pieces


def main(path: str, split: str, shown: str, store: str) -> int:
    """0 and the preview on stdout, 2 and the faults there."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    recipe = Recipe.model_validate_json(Path(path).read_text())
    try:
        answer = preview(recipe, split, int(shown), Path(store) if store else None)
    except UserError as error:
        print(json.dumps({"faults": [[fault.where, fault.what, fault.fix] for fault in error.faults]}))
        return error.exit_code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
