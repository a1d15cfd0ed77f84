"""`hpcft data show`: rows as the model will see them. `python -m hpcft.train.preview RECIPE.json SPLIT ROWS STORE`.

It runs in the recipe's env, prints one JSON object, and trains nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcft.data.features import Feature
from hpcft.data.source import chosen_rows, in_source, place_of, selection_of
from hpcft.errors import UserError
from hpcft.recipe import VERDICTS, Recipe
from hpcft.tasks.task import make_task
from hpcft.tasks.tokenize import check_tokenizer
from hpcft.textrows import Row
from hpcft.train.labels import classes_of
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
    check_tokenizer(tokenizer, recipe.model.path, ends=not recipe.has_classes)
    if recipe.has_classes and recipe.data.labels is None:
        labels = VERDICTS if recipe.task == "prefer" else classes_of(recipe)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": labels})})
    selection, place = selection_of(recipe, split, store, tokenizer), place_of(recipe, split)
    rows = list(islice(chosen_rows(recipe, split, selection), LOOKED_AT))
    blocks, limit = recipe.task == "corpus", recipe.data.max_length
    try:
        found = list(_features(recipe if blocks else _uncut(recipe), tokenizer, rows, place))
        # Of texts that are classified a task leaves out the middle; of others what stands behind the limit is cut.
        kept = (
            list(_features(recipe, tokenizer, rows, place)) if recipe.has_classes else [_cut(f, limit) for f in found]
        )
    except UserError as error:
        raise in_source(error, place, selection) from None
    lengths, left = (np.array([len(feature.tokens) for feature in some]) for some in (found, kept))
    learnt = [1 if feature.label is not None else sum(feature.trained[1:]) for feature in kept]
    shown_rows = kept if recipe.has_classes else found
    return {
        "place": str(place),
        "unit": "block" if blocks else "row",
        "labels": recipe.data.labels,
        "of_each": [
            sum(feature.label == number for feature in kept) for number in range(len(recipe.data.labels or ()))
        ],
        "looked_at": len(found),
        "chosen": selection.words() if selection else None,
        "max_length": limit,
        "shown": [_pieces(tokenizer, feature, limit, recipe.data.labels) for feature in shown_rows[:shown]],
        "learnt": sum(learnt) / max(1, int(left.sum())),
        "lengths": {str(percent): int(np.percentile(lengths, percent, method="higher")) for percent in PERCENTILES},
        "cut_rows": int((lengths > left).sum()),
        "cut_tokens": int((lengths - left).sum()),
        "tokens": int(lengths.sum()),
        "unlearnt_rows": learnt.count(0),
    }


def _cut(feature: Feature, limit: int) -> Feature:
    return Feature(feature.tokens[:limit], feature.trained[:limit])


def _uncut(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_length": UNCUT})})


def _features(recipe: Recipe, tokenizer: Any, rows: Sequence[Row], place: Path) -> Iterator[Feature]:
    for chunk in make_task(recipe, tokenizer).chunks(rows, place):
        yield from chunk.features


def _pieces(tokenizer: Any, feature: Feature, limit: int, labels: Sequence[str] | None) -> list[tuple[str, str]]:
    """The text of a row in stretches, each `prompt`, `learnt` or `cut`; a row's class is what is learnt of it."""
    if feature.label is not None and labels:
        texts = (
            [feature.tokens[: feature.first], feature.tokens[feature.first :]] if feature.first else [feature.tokens]
        )
        return [("prompt", f"{tokenizer.decode(text)}\n") for text in texts] + [("learnt", labels[feature.label])]
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
