"""Brings the rows of a recipe from the hub into its cache. `python -m hpcft.data.download RECIPE`, by launch/fetchrows.

It runs in the env of the jobs, perhaps on another machine. RECIPE is the resolved recipe as JSON; a line of JSON
for each dataset comes back, {place, split, rows, commit}, or {fault: [where, what, fix]}.
"""

from __future__ import annotations

import json
import sys

from hpcft.data.source import commit_of, is_file, load_dataset, place_of
from hpcft.errors import UserError
from hpcft.recipe import Recipe


def main(text: str) -> int:
    """0 with all rows in the cache; 2 after a fault has been said."""
    brought = set()
    for recipe in Recipe.model_validate_json(text).each_phase():
        for split in ("train", "validation", "test"):
            place = place_of(recipe, split)
            asked = (str(place), split, recipe.data.revision, recipe.data.config)
            if not getattr(recipe.data, split) or is_file(place) or place.is_absolute() or asked in brought:
                continue
            brought.add(asked)
            try:
                found = load_dataset(recipe, split)
            except UserError as error:
                print(json.dumps({"fault": [error.faults[0].where, error.faults[0].what, error.faults[0].fix]}))
                return error.exit_code
            facts = {"place": str(place), "split": split, "rows": len(found), "commit": commit_of(found)}
            print(json.dumps(facts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
