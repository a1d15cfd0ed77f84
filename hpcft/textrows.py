"""Rows in text files, .jsonl, .json and .csv, one by one: read alike before the queue and in the job."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hpcft.errors import Fault, UserError

Row = dict[str, Any]
ENDINGS = (".jsonl", ".json", ".csv")
LONGEST = 1 << 25
"""Bytes of one line, and characters of one value: what is longer is a mistake, and would fill a node's memory."""
PIECE = 1 << 20
"""Characters of a .json file that are looked at together."""
CUT_UP = "Cut it into several rows, or leave it out."
AS_UTF8 = "Save the file as UTF-8."


def read_text_rows(path: Path, done: int = 0) -> Iterator[Row]:
    """The rows of a file, in its order, behind the first `done`, which are hardly looked at.

    A csv's cells stay text as they are written: `NA` and `007` are no missing value and no number; what a short row
    lacks is None. Raises UserError that names the line: not readable, not UTF-8, no JSON, a value too long.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".csv":
                yield from _read_csv(_Lines(file, path), done)
            elif path.suffix == ".json" and _begins_array(file):
                yield from _read_array(file, path, done)
            else:
                yield from _read_lines(_Lines(file, path), done)
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None


class _Lines:
    """The lines of a file, and where in it the last one stands."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.number, self.row = file, path, 0, 1

    def raw(self) -> bytes:
        """The next line; empty at the end."""
        line = self.file.readline(LONGEST + 1)
        self.number += 1
        if len(line) > LONGEST:
            raise self.fault(f"is longer than {LONGEST:,} bytes.", CUT_UP)
        return line.removeprefix(codecs.BOM_UTF8) if self.number == 1 else line  # a spreadsheet's mark

    def text(self, line: bytes) -> str:
        """A line as text."""
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            bad = f"is no UTF-8 text: its line has the byte 0x{line[error.start]:02x} at place {error.start + 1}."
            raise self.fault(bad, AS_UTF8) from None

    def __iter__(self) -> Iterator[str]:
        while line := self.raw():
            yield self.text(line)

    def fault(self, what: str, fix: str = "") -> UserError:
        """What is wrong with the row that is being read."""
        return UserError(Fault(f"{self.path}:{self.number}", f"row {self.row} {what}", fix))


def _read_lines(lines: _Lines, done: int) -> Iterator[Row]:
    while line := lines.raw():
        if line.isspace():
            continue
        if lines.row > done:
            try:
                row = json.loads(lines.text(line))
            except (json.JSONDecodeError, RecursionError) as error:
                raise lines.fault(f"is no JSON: {_reason(error)}.") from None
            if not isinstance(row, dict):
                raise lines.fault("is no JSON object.", 'Write {"column": value, ...}.')
            yield row
        lines.row += 1


def _reason(error: json.JSONDecodeError | RecursionError) -> str:
    what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
    return f"{what[:1].lower()}{what[1:]}"


def _read_csv(lines: _Lines, done: int) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines, strict=True)
    try:
        columns = next((cells for cells in reader if cells), [])
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise UserError(Fault(f"{lines.path}:{lines.number}", f'the header has "{twice}" twice.', "Rename one."))
        for cells in reader:
            if not cells:
                continue
            if len(cells) > len(columns):
                raise lines.fault(f"has {len(cells)} cells, and the header {len(columns)}.", "Put commas in quotes.")
            if lines.row > done:
                short = len(columns) - len(cells)
                yield dict(zip(columns, [*cells, *[None] * short] if short else cells, strict=True))
            lines.row += 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise lines.fault(f"has a cell of more than {LONGEST:,} characters.", CUT_UP) from None
        fix = "Is a quote not closed?" if "unexpected end" in str(error) else 'Write a quote in a cell as "".'
        raise lines.fault(f"is no csv: {error}.", fix) from None


def _begins_array(file: BinaryIO) -> bool:
    """Whether the file is one list; many that are called .json have a row a line."""
    start = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    return start[:1] == b"["


def _read_array(file: BinaryIO, path: Path, done: int) -> Iterator[Row]:
    """The objects of a list that may be larger than the memory."""
    pieces, number = _Pieces(file), 0
    if not pieces.skip("["):
        return
    while not pieces.skip("]"):
        number += 1
        where = f"{path}, row {number}"
        if number > 1 and not pieces.skip(","):
            raise UserError(Fault(where, pieces.bad or "is no JSON: no comma before it, or the list is not closed."))
        pieces.skip("")
        row, problem = pieces.value()
        if problem:
            raise UserError(Fault(where, problem))
        if not isinstance(row, dict):
            raise UserError(Fault(where, "is no JSON object.", 'Write {"column": value, ...}.'))
        if number > done:
            yield row


class _Pieces:
    """The text of a .json file, as far as it has been read and not yet been used."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.place, self.ended, self.bad = "", 0, False, ""
        self.json = json.JSONDecoder()

    def more(self) -> bool:
        """Whether there was something left to read."""
        if self.ended:
            return False
        piece = self.file.read(PIECE)
        try:
            text = self.decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            self.bad = f"is no UTF-8 text: it has the byte 0x{error.object[error.start]:02x}. {AS_UTF8}"
        self.ended = not piece or bool(self.bad)
        self.text, self.place = self.text[self.place :] + text, 0
        return True

    def skip(self, mark: str) -> bool:
        """Whether this mark comes next, blanks apart; it is passed over."""
        while True:
            rest = self.text[self.place : self.place + 1]
            if rest and rest in " \t\r\n":
                self.place += 1
            elif rest:
                break
            elif not self.more():
                return False
        found = rest == mark
        self.place += found
        return found

    def value(self) -> tuple[object, str]:
        """The next value, or what is wrong with it."""
        while True:
            try:
                found, end = self.json.raw_decode(self.text, self.place)
            except (json.JSONDecodeError, RecursionError) as error:
                end = len(self.text)
                if end - self.place <= LONGEST and isinstance(error, json.JSONDecodeError) and self.more():
                    continue
                found, problem = None, self.bad or f"is no JSON: {_reason(error)}."
            else:
                problem = ""
            if end - self.place > LONGEST:
                return None, f"is longer than {LONGEST:,} bytes. {CUT_UP}"
            self.place = end
            return found, problem


def label_of(value: object) -> str:
    """A cell as the name of a class: whole numbers and truth values of any format read alike.

    >>> [label_of(value) for value in ("glad", 3, 3.0, True)]
    ['glad', '3', '3', 'true']
    """
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's too
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # pandas makes floats of whole numbers beside a gap
        return str(int(value))
    return str(value)
