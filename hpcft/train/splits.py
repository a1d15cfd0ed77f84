"""The splits of a run: features of its rows, tokenised by this run or taken over from another of the same rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from hpcft.data import shared
from hpcft.data.features import Features, stored_features
from hpcft.data.preparation import Chunk, prepare
from hpcft.data.rows import rows_behind
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.tasks.task import make_task
from hpcft.train.control import Control, Stop

SAY_EVERY = 30.0
"""Seconds between two lines in the log."""
FORMAT = 1
"""Of what is made of rows: one more when a change here makes other features of the same rows."""


def features_of(split: str, run: RunDir, recipe: Recipe, tokenizer: Any, control: Control) -> Features:
    """The features of a split, made by rank 0 in the first job. Raises UserError on every process; Stop."""
    folder = run.features / split
    if control.rank == 0 and stored_features(folder) is None:
        try:
            _make(folder, Path(getattr(recipe.data, split)), run.path.parent / ".features", recipe, tokenizer, control)
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


def _make(folder: Path, path: Path, common: Path, recipe: Recipe, tokenizer: Any, control: Control) -> None:
    source = source_of(path, recipe, tokenizer)
    if shared.take(common, source, folder) is not None:
        return
    task = make_task(recipe, tokenizer)

    def chunks(done: int, carry: Sequence[int]) -> Iterator[Chunk]:
        said = time.monotonic()
        if done:
            print(f"hpcft: {done} rows of {path.name} were tokenised before", flush=True)
        for chunk in task.chunks(rows_behind(path, done), path, done, carry):
            yield chunk
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                print(f"hpcft: {chunk.rows} rows of {path.name} tokenised", flush=True)

    prepare(folder, source, chunks, control.poll)
    shared.leave(common, source, folder)


def source_of(path: Path, recipe: Recipe, tokenizer: Any) -> str:
    """Hash of all that features come of: the file's bytes, the prompt, the tokenizer, and what the recipe says of them.

    Raises UserError if a file cannot be read.
    """
    data = recipe.data
    try:
        with path.open("rb") as file:
            rows = hashlib.file_digest(file, "sha256").hexdigest()
        prompt = Path(data.template).read_text(encoding="utf-8") if data.template else None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(Fault(str(error.filename or path), f"cannot be read: {why}.")) from None
    facts = {
        "format": FORMAT,
        "rows": rows,
        "kind": path.suffix,
        "task": recipe.task,
        "prompt": prompt,
        "keys": [data.text, data.max_length, data.loss_on],
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "class": type(tokenizer).__name__,
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id],
        "versions": [tokenizers.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
