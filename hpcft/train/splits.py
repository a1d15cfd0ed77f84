"""The splits of a run: features of its rows, tokenised by this run or taken over from another of the same rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from hpcft.data import shared
from hpcft.data.features import Features, stored_features
from hpcft.data.preparation import Chunk, prepare
from hpcft.data.selection import Selection
from hpcft.data.source import chosen_rows, in_source, place_of, selection_of, source_hash
from hpcft.disk import write_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.tasks.task import make_task
from hpcft.train.control import Control, Stop

SAY_EVERY = 30.0
"""Seconds between two lines in the log."""
FORMAT = 3
"""Of what is made of rows: one more when a change here makes other features of the same rows."""


def features_of(split: str, run: RunDir, recipe: Recipe, tokenizer: Any, control: Control, below: str = "") -> Features:
    """The features of a split, made by rank 0 in the first job. Raises UserError on every process; Stop.

    `below` is the folder of a phase among the run's features, and the recipe that phase's.
    """
    folder = run.features / below / split
    if control.rank == 0 and stored_features(folder) is None:
        try:
            _make(folder, split, run, recipe, tokenizer, control)
        except UserError:
            control.share(1)  # what poll says to the others: leave
            raise
    if control.rank == 0:
        control.share(2)
        return Features(folder)
    while (answer := control.share(0)) != 2:
        if answer == 1:
            raise Stop
    return Features(folder)


def _make(folder: Path, split: str, run: RunDir, recipe: Recipe, tokenizer: Any, control: Control) -> None:
    common, place = run.path.parent / ".features", place_of(recipe, split)
    selection = selection_of(recipe, split, run.splits, tokenizer, control.poll)
    if selection is not None:
        report_rows(run, folder.relative_to(run.features).as_posix(), place, selection)
    source = source_of(split, recipe, tokenizer, selection)
    with shared.turn(common, source, control.poll):
        if shared.take(common, source, folder) is None:
            _tokenise(folder, split, source, selection, recipe, tokenizer, control)
            shared.leave(common, source, folder)


def _tokenise(
    folder: Path,
    split: str,
    source: str,
    selection: Selection | None,
    recipe: Recipe,
    tokenizer: Any,
    control: Control,
) -> None:
    place = place_of(recipe, split)
    task = make_task(recipe, tokenizer)

    def chunks(done: int) -> Iterator[Chunk]:
        said = time.monotonic()
        if done:
            print(f"hpcft: {done} rows of {place.name} were tokenised before", flush=True)
        for chunk in task.chunks(chosen_rows(recipe, split, selection, done), place, done):
            yield chunk
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                print(f"hpcft: {chunk.rows} rows of {place.name} tokenised", flush=True)

    try:
        prepare(folder, source, chunks, control.poll)
    except UserError as error:
        raise in_source(error, place, selection) from None


def report_rows(run: RunDir, split: str, place: Path, selection: Selection) -> None:
    """Say which rows were chosen, in the log and for `hpcft show`; of a phase, `split` is full/train."""
    print(f"hpcft: {split}: {selection.words()} of {place.name}", flush=True)
    report = {"source": str(place), **selection.report, "fingerprint": selection.fingerprint}
    write_json(run.path / "rows.json", {**run.rows, split: report})


def source_of(split: str, recipe: Recipe, tokenizer: Any, selection: Selection | None = None) -> str:
    """Hash of all that features come of: the rows, the prompt, the tokenizer, and what the recipe says of them.

    Raises UserError if a file cannot be read.
    """
    data = recipe.data
    rows = f"{split} of {selection.fingerprint}" if selection else source_hash(recipe, split)
    try:
        prompt = Path(data.template).read_text(encoding="utf-8") if data.template else None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(Fault(str(data.template), f"cannot be read: {why}.")) from None
    facts = {
        "format": FORMAT,
        "rows": rows,
        "kind": place_of(recipe, split).suffix,
        "task": recipe.task,
        "prompt": prompt,
        "keys": data.model_dump(exclude={"train", "validation", "test", "template", "workers"}),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "class": type(tokenizer).__name__,
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id],
        "versions": [tokenizers.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
