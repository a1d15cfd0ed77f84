"""Rows with a label: their texts as tokens, and the number of their class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcft.data.rows import Row
from hpcft.errors import Fault, UserError
from hpcft.rowfaults import RowFaults, cell_fault, class_faults, is_missing
from hpcft.textrows import label_of

LABEL = "label"
"""The column of the class, in every task that has one."""
MOST_CLASSES = 1000
"""More labels than that are a text by mistake."""


def read_labelled(
    rows: Sequence[Row], columns: Sequence[str], labels: Sequence[str], start: int, path: Path
) -> tuple[list[list[str]], list[int]]:
    """(columns) texts of every row, and its class. Raises UserError with the rows that lack one, or have another.

    `start` rows of the file came before.
    """
    texts: list[list[str]] = []
    classes: list[int] = []
    faults = RowFaults(path)
    numbers = {label: number for number, label in enumerate(labels)}
    for number, row in enumerate(rows, start + 1):
        cells = (cell_fault(row, column, filled=True) for column in (*columns, LABEL))
        if wrong := next(filter(None, cells), None):
            faults.add(number, wrong)
            continue
        if (label := label_of(row[LABEL])) not in numbers:
            what = f'its label "{label}" is none of the classes.'
            faults.add(number, what, f"Known: {', '.join(numbers)}.", kind="label")
            continue
        texts.append([str(row[column]) for column in columns])
        classes.append(numbers[label])
    if told := faults.told():
        raise UserError(told)
    return texts, classes


def labels_in(rows: Iterable[Row], path: Path, *, lenient: bool = False) -> set[str]:
    """The classes of these rows. Raises UserError: a row has none, unless `lenient`, or they are too many."""
    found: set[str] = set()
    for number, row in enumerate(rows, 1):
        if is_missing(row.get(LABEL)):
            if lenient:
                continue
            raise UserError(Fault(f"{path}, row {number}", f'has no "{LABEL}".'))
        if not str(row[LABEL]).strip():
            if lenient:
                continue
            raise UserError(Fault(f"{path}, row {number}", f'"{LABEL}" is empty.'))
        found.add(label_of(row[LABEL]))
        if len(found) > MOST_CLASSES:
            what = f'"{LABEL}" has more than {MOST_CLASSES} different values.'
            raise UserError(Fault(str(path), what, "Is it the column of the class?"))
    return found


def in_order(labels: set[str], path: Path) -> tuple[str, ...]:
    """The classes by number where all are whole numbers, else by letter. Raises UserError: see class_faults."""
    if faults := class_faults(labels, path):
        raise UserError(faults)
    whole = all(label.removeprefix("-").isascii() and label.removeprefix("-").isdigit() for label in labels)
    return tuple(sorted(labels, key=int) if whole else sorted(labels))


def tokens_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens around it."""
    # verbose=False: it warns of texts longer than the model's context, of which a task leaves out the middle.
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [list(tokens) for tokens in encoded["input_ids"]]
