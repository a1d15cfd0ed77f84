"""The selection: which rows of a source make up train, validation and test, drawn by a seed and filtered."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcft.data import shared
from hpcft.data.diverse import pick
from hpcft.data.facts import Facts, Reader, read_facts
from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rowfaults import quoted
from hpcft.sections import Filter
from hpcft.textrows import Row

SPLITS = ("train", "validation", "test")
FORMAT = 2
"""Of what is chosen: one more when a change here would choose other rows for the same recipe."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The rows of one split by their place in the source, ascending, and what became of the others."""

    rows: Rows
    report: dict[str, Any]
    """{of: rows that were drawn, removed: {filter: rows}, rows: those that are left}."""
    fingerprint: str
    """Of the source and of all that decides which rows these are."""

    def words(self) -> str:
        """`880 of 1000 rows (100 duplicates, 20 max_tokens left out)`."""
        counts = self.report["removed"]
        removed = ", ".join(f"{counts[name]} {name}" for name in Filter.model_fields if name in counts)
        drawn = f"{self.report['rows']} of {self.report['of']} rows"
        return f"{drawn} ({removed} left out)" if removed else drawn


@dataclass(frozen=True)
class Wanted:
    """What is to be chosen from: a source, and how messages call it."""

    recipe: Recipe
    split: str
    """The one whose source it is."""
    place: str
    rows: Callable[[int], Iterator[Row]]
    """Those behind the first so many."""
    reader: Reader
    source: str
    """Hash of the source."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are drawn from this source."""
        drawn = self.recipe.data.split if self.split == "train" else None
        return (self.split, *(name for name in SPLITS[1:] if drawn and getattr(drawn, name)))

    def fingerprint(self) -> str:
        """Hash of all that decides which rows are chosen."""
        data, tokenizer = self.recipe.data, self.reader.tokenizer
        facts = {
            "format": FORMAT,
            "source": self.source,
            "split": self.split,
            "parts": data.split.model_dump() if data.split else None,
            "filter": data.filter.model_dump() if data.filter else None,
            "columns": [data.columns, list(self.reader.columns)],
            "task": self.recipe.task,
            "prompt": self.reader.template.text if self.reader.template else None,
            "tokenizer": tokenizer.backend_tokenizer.to_str() if tokenizer else None,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def select(wanted: Wanted, store: Path | None, poll: Callable[[], None]) -> dict[str, Selection]:
    """The selection of each part of a source; found in the folder `store` if a run has put it there, else put there.

    Raises UserError: an id that two rows have, a part that no row is left of; and what `poll` raises.
    """
    fingerprint = wanted.fingerprint()
    if store and (found := _stored(store / fingerprint, fingerprint)):
        return found
    part = store / f".{fingerprint}.part" if store else None
    facts = read_facts(part, partial(_with_columns, wanted), wanted.reader, poll)
    keep = wanted.recipe.data.filter or Filter()
    facts["again"] = _again(facts)
    if keep.duplicates is None:
        _check_ids(wanted, facts)
    chosen = {
        name: Selection(*filtered(wanted, name, facts, rows), fingerprint)
        for name, rows in drawn(wanted, facts).items()
    }
    if store and part:
        _put(store, fingerprint, chosen)
        shutil.rmtree(part, ignore_errors=True)
    return chosen


def _with_columns(wanted: Wanted, done: int) -> Iterator[Row]:
    """The rows behind the first `done`. Raises UserError where the first of all lacks a column: all would be alike."""
    keep = wanted.recipe.data.filter or Filter()
    rows = wanted.rows(done)
    if not done and not keep.empty:
        first = next(rows, {})
        split = wanted.recipe.data.split if wanted.split == "train" else None
        named = [*wanted.reader.columns, *(name for name in (split and split.by, keep.balance) if name)]
        if missing := [name for name in named if name not in first]:
            what, fix = f'has no column "{missing[0]}".', f"It has {quoted(first)}."
            raise UserError(Fault(f"{wanted.place}, row 1", what, fix))
        yield first
    yield from rows


def _again(facts: Facts) -> npt.NDArray[np.bool_]:
    """Whether a row before it has the same id, or says the same."""
    return ~_first(_codes(facts["same"])) | (facts["has_id"] & ~_first(_codes(facts["id"])))


def _stored(folder: Path, fingerprint: str) -> dict[str, Selection] | None:
    reports = read_json(folder / "report.json")
    if reports is None:
        return None
    with suppress(OSError, ValueError, EOFError):
        return {
            name: Selection(np.load(folder / f"{name}.npy"), report, fingerprint) for name, report in reports.items()
        }
    return None


def _put(store: Path, fingerprint: str, chosen: dict[str, Selection]) -> None:
    """Leave it to runs to come; a disk that takes nothing is no reason to stop."""
    try:
        store.mkdir(exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=store, prefix=".writing-") as work:
            folder = Path(work) / "chosen"
            folder.mkdir(mode=0o700)
            for name, selection in chosen.items():
                np.save(folder / f"{name}.npy", selection.rows)
            write_json(folder / "report.json", {name: selection.report for name, selection in chosen.items()})
            with suppress(FileExistsError, OSError):
                folder.rename(store / fingerprint)
        shared.forget(store)
    except OSError as error:
        print(f"hpcft: the choice of rows is not kept for other runs: {error}", flush=True)


def drawn(wanted: Wanted, facts: Facts) -> dict[str, Rows]:
    """The rows of each part before any filter, ascending. Raises UserError: none is left to learn from.

    In each class the rows stand in an order drawn by the seed and by what they say, not by their place: so the same
    rows are held out whatever the order of the file, most of them still when it grows, and rows that say the same stand
    together and are never parted. The first ones are the test, those behind them the validation.
    """
    split, total = wanted.recipe.data.split, len(facts["same"])
    if len(wanted.parts) == 1 or split is None:
        return {wanted.split: np.arange(total)}
    if excess := split.excess(total):
        raise UserError(Fault(wanted.place, excess, "Ask for less."))
    part = np.zeros(total, dtype=np.int8)
    same = _codes(facts["same"])
    classes = _codes(facts["by"]) if split.by else np.zeros(total, dtype=np.int64)
    order = np.lexsort((same, classes))
    sizes = np.bincount(classes)
    asked = split.sizes(total)
    quotas = {"test": _shares(asked["test"], sizes, sizes - 1)}
    quotas["validation"] = _shares(asked["validation"], sizes, sizes - 1 - quotas["test"])
    for first, size, test, validation in zip(np.cumsum(sizes) - sizes, sizes, *quotas.values(), strict=True):
        rows = order[first : first + size]
        held, both = (_border(same[rows], place) for place in (int(test), int(test + validation)))
        part[rows[:held]], part[rows[held : max(held, both)]] = 2, 1
    found = {name: np.flatnonzero(part == SPLITS.index(name)) for name in wanted.parts}
    return {name: rows.astype(np.int64) for name, rows in found.items()}


def _codes(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """(rows,): 0, 1, 2... for each hash, in their order."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    new = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    codes = np.zeros(len(hashes), dtype=np.int64)
    codes[order[1:]] = np.cumsum(new)
    return codes


def _shares(count: int, sizes: npt.NDArray[np.int64], most: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`count` rows shared out by the sizes of the classes, by largest remainders; of each class so many at most.

    >>> _shares(3, np.array([10, 20, 1]), np.array([9, 19, 0]))
    array([1, 2, 0])
    """
    total = int(sizes.sum())
    quotas, rest = count * sizes // total, count * sizes % total
    more = np.argsort(-rest, kind="stable")[: count - int(quotas.sum())]
    quotas[more] += 1
    return np.minimum(quotas, most)


def _border(same: npt.NDArray[np.int64], place: int) -> int:
    """The nearest place to this one at which no two rows that say the same are parted."""
    if not 0 < place < len(same):
        return place
    borders = np.flatnonzero(same[1:] != same[:-1]) + 1
    borders = np.concatenate([[0], borders, [len(same)]])
    return int(borders[np.abs(borders - place).argmin()])


def filtered(wanted: Wanted, name: str, facts: Facts, rows: Rows) -> tuple[Rows, dict[str, Any]]:
    """Those of the rows that stay in a part, and its report. Raises UserError: none stays."""
    data = wanted.recipe.data
    keep = data.filter or Filter()
    removed: dict[str, int] = {}

    def leave(reason: str, stays: npt.NDArray[np.bool_]) -> None:
        nonlocal rows
        removed[reason] = int((~stays).sum())
        rows = rows[stays]

    of = len(rows)
    if keep.empty:
        leave("empty", ~facts["empty"][rows])
    if keep.duplicates == "drop":
        leave("duplicates", ~facts["again"][rows])
    if keep.min_tokens:
        leave("min_tokens", facts["tokens"][rows] >= keep.min_tokens)
    if keep.max_tokens:
        leave("max_tokens", facts["tokens"][rows] <= keep.max_tokens)
    chance = facts["same"][:, 0]
    if keep.balance:
        codes = _codes(facts["balance"][rows])
        leave("balance", _in_turn(codes, chance[rows]) < min(np.bincount(codes), default=0))
    if keep.diverse and name == "train":
        codes = _codes(facts["balance"][rows]) if keep.balance else np.zeros(len(rows), dtype=np.int64)
        leave("diverse", _diverse(codes, facts["words"][rows], chance[rows], keep.diverse))
    if not len(rows):
        gone = ", ".join(f"{count} {reason}" for reason, count in removed.items() if count)
        raise UserError(Fault(wanted.place, f"none of the {of} rows for {name} is left; left out: {gone or 'none'}."))
    return rows, {"of": of, "removed": removed, "rows": len(rows)}


def _diverse(
    codes: npt.NDArray[np.int64], words: npt.NDArray[Any], chance: npt.NDArray[Any], number: int
) -> npt.NDArray[np.bool_]:
    """Which rows make up a diverse subset of so many, as many of each class."""
    stays = np.zeros(len(codes), dtype=np.bool_)
    classes = int(codes.max(initial=0)) + 1
    for code in range(classes):
        rows = np.flatnonzero(codes == code)
        stays[rows[pick(words[rows], chance[rows], number * (code + 1) // classes - number * code // classes)]] = True
    return stays


def _in_turn(codes: npt.NDArray[np.int64], chance: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many rows of its class come before each, in the order of chance."""
    order = np.lexsort((np.arange(len(codes)), chance, codes))
    sizes = np.bincount(codes)
    turns = np.empty(len(codes), dtype=np.int64)
    turns[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return turns


def _first(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether no row before it has the same."""
    first = np.zeros(len(codes), dtype=np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    return first


def _check_ids(wanted: Wanted, facts: Facts) -> None:
    named = np.flatnonzero(facts["has_id"])
    codes = _codes(facts["id"][named])
    again = np.flatnonzero(~_first(codes))
    if not len(again):
        return
    row, before = (int(named[index]) for index in (again[0], np.flatnonzero(codes == codes[again[0]])[0]))
    shown = json.dumps(next(wanted.rows(row))["id"], default=str)
    more = f", and so it is with {len(again) - 1} more" if len(again) > 1 else ""
    fix = "Make ids unique, or write `filter: {duplicates: drop}` into data, or `keep` if they need not be."
    raise UserError(
        Fault(f"{wanted.place}, row {row + 1}", f"its id {shown} is that of row {before + 1} too{more}.", fix)
    )
