"""Sources: where the rows of a split come from, and the columns as the task calls them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hpcft.data.facts import Reader
from hpcft.data.rows import rows_behind
from hpcft.data.selection import Selection, Wanted, select
from hpcft.errors import Fault, UserError
from hpcft.parquetrows import PIECE
from hpcft.recipe import Recipe
from hpcft.rowfaults import quoted
from hpcft.template import PromptTemplate, read_template
from hpcft.textrows import CUT_UP, LONGEST, Row

COMMIT = re.compile(r"[0-9a-f]{40}")
LOADING = (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError)
"""What datasets 5 raises for a folder or id that it cannot load."""


def split_rows(recipe: Recipe, split: str, done: int = 0, store: Path | None = None) -> Iterator[Row]:
    """The rows of train, validation or test behind the first `done`, with columns under the names the task wants.

    Their order is the source's, the same in every job. `store` is where runs keep their choice of rows, which is made
    anew without it. Raises UserError that names the row: a source that cannot be read, a column that is not there, a
    value that is too long.
    """
    return chosen_rows(recipe, split, selection_of(recipe, split, store), done)


def chosen_rows(recipe: Recipe, split: str, selection: Selection | None, done: int = 0) -> Iterator[Row]:
    """The rows of a selection behind the first `done`; all of the source where there is none."""
    if selection is None:
        yield from named_rows(recipe, split, done)
        return
    if done >= len(selection.rows):
        return
    wanted = iter(selection.rows[done:].tolist())
    first = following = next(wanted)
    for number, row in enumerate(named_rows(recipe, split, first), first):
        if number == following:
            yield row
            if (following := next(wanted, -1)) < 0:
                return


def named_rows(recipe: Recipe, split: str, done: int = 0) -> Iterator[Row]:
    """All rows of the source of a split behind the first `done`, checked, with columns as the task calls them."""
    place, data = place_of(recipe, split), recipe.data
    lenient = data.filter is not None and data.filter.empty is not None
    for number, row in enumerate(source_rows(recipe, split, done), done + 1):
        yield checked(renamed(row, data.columns, place, number, lenient), place, number)


def selection_of(
    recipe: Recipe,
    split: str,
    store: Path | None = None,
    tokenizer: Any = None,
    poll: Callable[[], None] = lambda: None,
) -> Selection | None:
    """Which rows of its source a split has, where the recipe asks for less than all; None for all.

    Where rows have ids, they are also held to be unique if there is a `store`. `poll` is called now and then and may
    raise to give up; what was read is gone on from. Raises UserError.
    """
    data, origin = recipe.data, origin_of(recipe, split)
    if not (data.split and origin == "train") and not data.filter:
        first = next(named_rows(recipe, origin), {}) if store else {}
        if "id" not in first:
            return None
    columns, template = columns_of(recipe)
    by_tokens = data.filter is not None and (data.filter.min_tokens or data.filter.max_tokens)
    tokenizer = (tokenizer or _tokenizer(recipe)) if by_tokens else None
    wanted = Wanted(
        recipe,
        origin,
        str(place_of(recipe, origin)),
        partial(named_rows, recipe, origin),
        Reader(recipe, columns, template, tokenizer),
        source_hash(recipe, origin),
    )
    return select(wanted, store, poll)[split]


def columns_of(recipe: Recipe) -> tuple[Sequence[str], PromptTemplate | None]:
    """The columns that the task reads, and its template, if it has one. Raises UserError if that cannot be read."""
    if recipe.columns:
        return recipe.columns, None
    path = Path(str(recipe.data.template))
    try:
        template = read_template(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Fault(str(path), f"cannot be read: {error}.")) from None
    return list(dict.fromkeys(template.columns)), template


def _tokenizer(recipe: Recipe) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(recipe.model.path, revision=recipe.model.revision or "main")


def origin_of(recipe: Recipe, split: str) -> str:
    """The split whose source these rows come from: `train` for those that `data.split` draws."""
    return split if getattr(recipe.data, split) else "train"


def place_of(recipe: Recipe, split: str) -> Path:
    """What messages call the source of a split: its file, its folder or its id."""
    return Path(getattr(recipe.data, origin_of(recipe, split)))


def in_source(error: UserError, place: Path, selection: Selection | None) -> UserError:
    """The same faults with the rows' numbers in the source: a task counts the rows that it is given."""
    if selection is None:
        return error
    faults, start = [], f"{place}, row "
    for fault in error.faults:
        number = fault.where.removeprefix(start)
        if number != fault.where and number.isdigit() and int(number) <= len(selection.rows):
            fault = replace(fault, where=f"{start}{selection.rows[int(number) - 1] + 1}")
        faults.append(fault)
    return UserError(faults)


def renamed(row: Row, columns: Mapping[str, str], place: Path, number: int, lenient: bool = False) -> Row:
    """The row with `columns[name]` called `name`; what else it has stays. Raises UserError: there is no such column.

    Where `lenient`, such a row is left to the filter that drops what is empty.

    >>> renamed({"body": "hi", "id": 7}, {"text": "body"}, Path("a.jsonl"), 1)
    {'text': 'hi', 'id': 7}
    """
    if not columns:
        return row
    try:
        found = {name: row[given] for name, given in columns.items() if not lenient or given in row}
    except KeyError as error:
        what = f'has no column "{error.args[0]}", which data.columns names.'
        raise UserError(Fault(f"{place}, row {number}", what, f"It has {quoted(row)}.")) from None
    gone = {*columns, *columns.values()}
    return {**found, **{name: value for name, value in row.items() if name not in gone}}


def checked(row: Row, place: Path, number: int) -> Row:
    """The same row. Raises UserError for a value that no model could read."""
    for name, value in row.items():
        if type(value) is str and len(value) > LONGEST:  # of a file that has no lines which would be too long already
            what = f'"{name}" has {len(value):,} characters; {LONGEST:,} is the most.'
            raise UserError(Fault(f"{place}, row {number}", what, CUT_UP))
    return row


def source_rows(recipe: Recipe, split: str, done: int = 0) -> Iterator[Row]:
    """The rows as they are in the source. Raises UserError: it cannot be read, or holds none."""
    place = place_of(recipe, split)
    if is_file(place):
        yield from rows_behind(place, done)
        return
    dataset = load_dataset(recipe, split)
    if not len(dataset):
        raise UserError(Fault(str(place), "holds no row."))
    words = _classes(dataset)
    if done >= len(dataset):
        return  # which select refuses
    for batch in dataset.select(range(done, len(dataset))).iter(PIECE):
        for name, names in words.items():  # a class is kept as a number there; here it is a word
            batch[name] = [None if number is None or number < 0 else names[number] for number in batch[name]]
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def source_hash(recipe: Recipe, split: str) -> str:
    """SHA-256 of what the rows are read from. Raises UserError if it cannot be read."""
    place, found = place_of(recipe, split), hashlib.sha256()
    if is_file(place):
        files = [place]
    else:
        dataset = load_dataset(recipe, split)
        found.update(json.dumps([len(dataset), str(dataset.features)]).encode())
        files = [Path(cached["filename"]) for cached in dataset.cache_files]
    try:
        for path in files:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise UserError(Fault(str(error.filename), f"cannot be read: {(error.strerror or '').lower()}.")) from None
    return found.hexdigest()


def _classes(dataset: Any) -> dict[str, list[str]]:
    """The words of each column that holds classes."""
    from datasets import ClassLabel

    return {name: kind.names for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)}


def is_file(place: Path) -> bool:
    """Whether rows come from one file, not from a dataset in a folder or on the hub."""
    return place.is_absolute() and bool(place.suffix) and not place.is_dir() and ":" not in place.suffix


def load_dataset(recipe: Recipe, split: str) -> Any:
    """The `datasets.Dataset` of a split: of a folder of `save_to_disk`, or of the hub. Raises UserError."""
    import datasets  # a second that rows in files need not cost

    datasets.disable_progress_bars()
    place, name, split = str(place_of(recipe, split)), "", origin_of(recipe, split)
    if not Path(place).exists():
        place, _, name = place.partition(":")
    data = recipe.data
    on_hub = not place.startswith("/")
    try:
        if on_hub:
            found = datasets.load_dataset(place, data.config, revision=data.revision, split=name or split)
        else:
            found = datasets.load_from_disk(place)
    except LOADING as error:
        fix = "Is its id right, and does this node reach the hub, or have it in its cache?" if on_hub else ""
        raise UserError(Fault(place, f"cannot be loaded: {_one_line(error)}", fix)) from error
    commit = commit_of(found) if on_hub else None
    if COMMIT.fullmatch(data.revision or "") and commit != data.revision:  # datasets 5 takes what it has, unasked
        what = f"is at commit {commit} in the cache, not at {data.revision}, and the hub does not answer."
        raise UserError(Fault(place, what, "Fetch it where there is internet: `hpcft fetch RECIPE`."))
    if not isinstance(found, datasets.DatasetDict):
        return found
    if (wanted := name or split) not in found:
        what = f'has no split "{wanted}".'
        raise UserError(Fault(place, what, f"It has {quoted(found)}; write `{place}:NAME` for one of them."))
    return found[wanted]


def commit_of(dataset: Any) -> str | None:
    """Of a dataset of the hub, by the folder that its rows are kept in (datasets 5)."""
    name = Path(dataset.cache_files[0]["filename"]).parent.name if dataset.cache_files else ""
    return name if COMMIT.fullmatch(name) else None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text.rstrip('.')}."
