"""The rows before the queue: what a recipe's data lack, as far as it can be known in a moment and without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path

from hpcft.disk import read_json
from hpcft.errors import Fault, UserError
from hpcft.parquetrows import WRITE_IT, parquet_columns, read_parquet_rows
from hpcft.recipe import VERDICTS, Recipe
from hpcft.recipefile import RecipeFile
from hpcft.rowfaults import RowFaults, class_faults, gap_fault, is_missing, quoted, text_fault
from hpcft.sections import Filter
from hpcft.template import PromptTemplate, read_template
from hpcft.textrows import Row, label_of, read_text_rows

HELP = {
    ".jsonl": 'Write {"column": value, ...}, one row a line.',
    ".json": 'Write [{"column": value, ...}, ...].',
    ".csv": "Write a header and a row for each line below it.",
    ".parquet": WRITE_IT,
}
"""What a file of rows looks like, by its ending."""
FORMATS = tuple(HELP)
WHOLE = 4 << 20
"""Bytes up to which every row of a file is looked at."""
UNIQUE = "Make ids unique, or write `filter: {duplicates: drop}` into data, or `keep` if they need not be."
SOME = 1000
"""Rows that are looked at of a larger one; the job looks at all."""
PIECE = 100
"""Rows of a table that are in memory at a time: a login node is shared."""


def data_faults(file: RecipeFile) -> Iterator[Fault]:
    """What is wrong with the rows, and with the template."""
    data, template = file.recipe.data, None
    if file.recipe.task == "instruct":
        where = file.where("data.template")
        if data.template is None:
            yield Fault(where, "the task instruct needs data.template.", "Name a Markdown file.")
        else:
            try:
                template = read_template(Path(data.template))
            except (OSError, UnicodeDecodeError) as error:
                yield Fault(where, f"{data.template} cannot be read: {_reason(error)}.", "Name a Markdown file.")
            else:
                if problem := template.fault():
                    yield Fault(data.template, f"{problem}.", "Write it as `... {{column}} ... {{completion}}`.")
                    template = None
    yield from _choice_faults(file)
    yield from _column_faults(file, template)
    yield from _split_faults(file, template)


def _has_pyarrow() -> bool:
    """Whether it can be used here; an installed one may lack what a node of another age has."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"


def _wanted(recipe: Recipe, template: PromptTemplate | None) -> list[str]:
    """Columns that a row must have, as the task calls them."""
    named = template.columns if template else []
    return list(dict.fromkeys(recipe.columns or named))


def _choice_faults(file: RecipeFile) -> Iterator[Fault]:
    """What does not go together in how rows are drawn and filtered."""
    split, keep = file.recipe.data.split, file.recipe.data.filter
    for key in ("validation", "test"):
        if split and getattr(split, key) and getattr(file.recipe.data, key):
            what = f"data.{key} and data.split.{key} are both given."
            yield Fault(file.where(f"data.split.{key}"), what, "Remove one of the two.")
        elif split and (asked := getattr(split, key)) and asked > 1 and asked != int(asked):
            what = f"data.split.{key} = {asked:g} is neither a share below 1 nor a number of rows."
            yield Fault(file.where(f"data.split.{key}"), what, "Write 0.1 for a tenth, or 500 for so many rows.")
    if split and not split.validation and not split.test:
        what = "data.split draws nothing: it has neither validation nor test."
        yield Fault(file.where("data.split"), what, "Write `test: 0.1`, or remove it.")
    if split and sum(asked for asked in (split.validation, split.test) if asked and asked < 1) >= 1:
        yield Fault(file.where("data.split"), "data.split leaves no row to learn from.", "Ask for less.")
    if keep and keep.min_tokens and keep.max_tokens and keep.min_tokens > keep.max_tokens:
        what = f"data.filter.min_tokens = {keep.min_tokens} is more than max_tokens = {keep.max_tokens}."
        yield Fault(file.where("data.filter.min_tokens"), what, "Write less.")


def _column_faults(file: RecipeFile, template: PromptTemplate | None) -> Iterator[Fault]:
    wanted = _wanted(file.recipe, template)
    if not wanted:
        return  # the template is to blame
    for name in file.recipe.data.columns:
        if name not in (*wanted, "id", *_named(file.recipe)):
            reads = "the template" if file.recipe.task == "instruct" else f"the task {file.recipe.task}"
            what = f'data.columns.{name}: {reads} reads no "{name}".'
            yield Fault(file.where(f"data.columns.{name}"), what, f"It reads {quoted(wanted)}.")


def _named(recipe: Recipe) -> list[str]:
    """Columns by which rows are drawn or filtered."""
    split, keep = recipe.data.split, recipe.data.filter
    return [name for name in (split and split.by, keep and keep.balance) if name]


def _split_faults(file: RecipeFile, template: PromptTemplate | None) -> Iterator[Fault]:
    recipe = file.recipe
    named = recipe.data.labels or (VERDICTS if recipe.task == "prefer" else None)
    usable = named and recipe.has_classes and len(set(named)) == len(named) > 1 and "" not in named
    known = set(named or ()) if usable else None
    lacking: set[tuple[str, ...]] = set()
    for key in ("train", "validation", "test"):
        text = getattr(file.recipe.data, key)
        if text is None:
            continue
        read = _wanted(file.recipe, template)
        look = Look(file.recipe, key, file.where(f"data.{key}"), read, template, known, lacking)
        yield from look.faults()
        if key == "train" and look.whole:
            yield from _whole_faults(file, look)
            known = known or look.labels or None


def _whole_faults(file: RecipeFile, look: Look) -> Iterator[Fault]:
    """What is wrong with the training rows together, all of which were looked at."""
    if file.recipe.has_classes and look.known is None and look.labels and not file.phase:
        yield from class_faults(look.labels, look.place)
    split = file.recipe.data.split
    if split and look.rows and (excess := split.excess(look.rows)) and not any(_choice_faults(file)):
        yield Fault(look.place, excess, "Ask for less.")


def columns_help(missing: list[str], there: list[str], template: str | None) -> str:
    """What to do where these columns, which a template may ask for, are not among those that there are.

    >>> columns_help(["text"], ["Text", "mood"], None)
    'It has "Text", "mood". Give its name: `columns: {text: Text}` in data.'
    """
    cut = next((mark for mark in ";\t|" if len(there) == 1 and mark in there[0]), None)
    if cut:
        return f"Its one column is {quoted(there)}: write commas in place of {json.dumps(cut)}."
    pairs = ", ".join(f"{name}: {_nearest(name, there)}" for name in missing)
    names = "its name" if len(missing) == 1 else "their names"
    do = f"Correct {template}, or give {names}" if template else f"Give {names}"
    return f"It has {quoted(there)}. {do}: `columns: {{{pairs}}}` in data."


def _nearest(name: str, there: list[str]) -> str:
    """The column that is most likely meant, as YAML takes it."""
    found = get_close_matches(name, there, n=1) or get_close_matches(name.title(), there, n=1) or ["..."]
    return found[0] if found[0].isidentifier() or found == ["..."] else json.dumps(found[0])


@dataclass
class Look:
    """One split, as it is looked at before the queue."""

    recipe: Recipe
    key: str
    where: str
    read: list[str]
    """Columns that the task reads."""
    template: PromptTemplate | None
    known: set[str] | None
    """Labels of the training rows, where all of them were looked at."""
    lacking: set[tuple[str, ...]]
    """Columns that another split lacks too, with those that it has: to be said once."""
    labels: set[str] = field(default_factory=set)
    ids: dict[str, int] = field(default_factory=dict)
    whole: bool = False
    rows: int = 0
    """That were looked at."""

    def __post_init__(self) -> None:
        self.wrong = RowFaults(self.place)

    @property
    def wanted(self) -> list[str]:
        """Columns that there have to be: those, and the ones by which rows are drawn or filtered."""
        return list(dict.fromkeys([*self.read, *_named(self.recipe)]))

    @property
    def filled(self) -> tuple[str, ...]:
        """Columns in which a blank is as good as nothing; a prompt may have some."""
        return (self.template.completion,) if self.template else self.recipe.columns

    @property
    def place(self) -> str:
        """The file, folder or id."""
        return str(getattr(self.recipe.data, self.key))

    def faults(self) -> Iterator[Fault]:
        """Everything that is wrong with this split."""
        path = Path(self.place)
        if not path.is_absolute():
            return  # of the hub: the job will find out
        name = "" if os.path.lexists(path) else path.name.partition(":")[2]
        folder = path.with_name(path.name.partition(":")[0]) if name else path
        if os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for a folder that may not be entered
            yield from self._folder_faults(folder, name or self.key)
        elif path.suffix not in FORMATS:
            endings = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
            what = f"{path} is of no format known here."
            yield Fault(self.where, what, f"Give a file that ends in {endings}, or a folder of save_to_disk.")
        else:
            yield from self._file_faults(path)

    def _folder_faults(self, folder: Path, split: str) -> Iterator[Fault]:
        """Of a folder that `save_to_disk` has made."""
        if several := read_json(folder / "dataset_dict.json"):
            if split not in several["splits"]:
                what = f'{folder} has no split "{split}".'
                fix = f"It has {quoted(several['splits'])}; write `{folder}:NAME` for one of them."
                yield Fault(self.where, what, fix)
                return
            folder = folder / split
        facts = read_json(folder / "dataset_info.json")
        if facts is None or not (folder / "state.json").exists():
            what = f"{folder} is no folder of rows: it has no dataset_info.json."
            yield Fault(self.where, what, "Write it with datasets' save_to_disk, or name a file.")
        elif there := list(facts.get("features") or ()):
            yield from self._missing_faults(self._missing(there), there)

    def _file_faults(self, path: Path) -> Iterator[Fault]:
        try:
            if path.suffix == ".parquet":
                with path.open("rb") as binary:
                    if binary.read(4) != b"PAR1":
                        yield Fault(self.where, f"{path} is no parquet file.", HELP[".parquet"])
                        return
                if not _has_pyarrow():
                    return  # only the job can read it
            self.whole = path.stat().st_size <= WHOLE
            rows, there = self._opened(path)
            if there is None:
                yield Fault(self.where, f"{path} holds no row.", HELP[path.suffix])
                return
            if missing := self._missing(there):
                self.whole = False
                yield from self._missing_faults(missing, there)
                return
            for number, row in enumerate(rows if self.whole else islice(rows, SOME), 1):
                self._row(number, row)
                self.rows = number
        except OSError as error:
            yield Fault(self.where, f"{path} cannot be read: {_reason(error)}.", "Name a file of rows.")
        except UserError as error:
            self.whole = False
            yield from (*self.wrong.told(), *error.faults)
        else:
            yield from self.wrong.told(all_seen=self.whole)

    def _opened(self, path: Path) -> tuple[Iterator[Row], list[str] | None]:
        """The rows, and the columns of the first; None where there is none."""
        if path.suffix == ".parquet":
            there = parquet_columns(path)
            given = {self.recipe.data.columns.get(name, name) for name in (*self.wanted, "id")}
            rows = read_parquet_rows(path, columns=[name for name in there if name in given] or there[:1], piece=PIECE)
        else:
            rows, there = read_text_rows(path), []
        first = next(rows, None)
        return chain([first or {}], rows), None if first is None else there or list(first)

    def _missing(self, there: list[str]) -> list[str]:
        """Columns that have to be there and are not, as the task calls them."""
        columns = self.recipe.data.columns
        return [name for name in self.wanted if columns.get(name, name) not in there]

    def _missing_faults(self, missing: list[str], there: list[str]) -> Iterator[Fault]:
        if not missing or (*missing, "", *there) in self.lacking:
            return
        self.lacking.add((*missing, "", *there))
        names = quoted(self.recipe.data.columns.get(name, name) for name in missing)
        asks = self.template is not None and set(missing) <= set(self.template.columns)
        template = Path(str(self.recipe.data.template)).name if asks else None
        asked = f", which {template} asks for" if template else ""
        yield Fault(self.where, f"{self.place} has no column {names}{asked}.", columns_help(missing, there, template))

    def _row(self, number: int, row: Row) -> None:
        """Look at one row; of what is wrong with many the first is named."""
        columns, keep = self.recipe.data.columns, self.recipe.data.filter or Filter()
        key = row.get(columns.get("id", "id"))
        before = number if is_missing(key) or keep.duplicates else self.ids.setdefault(str(key), number)
        if before != number:
            self.wrong.add(number, f'its id "{key}" is that of row {before} too.', UNIQUE, kind="id")
        for name in self.wanted:
            given = columns.get(name, name)
            gap = gap_fault(row, given, filled=name in self.filled)
            if wrong := (None if keep.empty else gap) or (text_fault(row, given) if name in self.read else None):
                self.wrong.add(number, wrong)
            elif not gap and name in ("label", self.template and self.template.completion):
                # What a template brings is written as it is, `True` of a truth value; a class has a name of its own.
                self._label(number, given, str(row[given]) if self.template else label_of(row[given]))

    def _label(self, number: int, column: str, label: str) -> None:
        choices = self.recipe.evaluate.choices
        if self.template:
            if self.key == "test" and choices and label not in choices:
                fix = f"Known: {', '.join(choices)}."
                self.wrong.add(number, f'"{label}" is none of evaluate.choices.', fix, kind="label")
            return
        self.labels.add(label)
        if self.known is not None and label not in self.known:
            what = f'"{column}" is "{label}", which no training row has.'
            if self.recipe.data.labels or self.recipe.task == "prefer":
                what = f'"{column}" is "{label}", which is none of the classes.'
            self.wrong.add(number, what, f"Known: {', '.join(sorted(self.known))}.", kind="label")
