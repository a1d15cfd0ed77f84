"""Rows in text files: whole, behind others, and each kind of broken row by its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcft import textrows
from hpcft.errors import UserError
from hpcft.textrows import read_text_rows

ROWS = [{"text": 'a "b"\n', "n": 1}, {"text": "ü,[", "n": None}, {"text": " " * 50, "n": 2.5}]


@pytest.mark.parametrize("done", [0, 1, 3, 4])
@pytest.mark.parametrize("kind", ["lines", "lines called .json", "list", "list in lines"])
def test_json_in_all_its_forms_brings_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, done: int
) -> None:
    monkeypatch.setattr(textrows, "PIECE", 7)  # a row, and a letter in it, lies across several pieces
    path = tmp_path / ("rows.jsonl" if kind == "lines" else "rows.json")
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    texts = {"list": json.dumps(ROWS, ensure_ascii=False), "list in lines": json.dumps(ROWS, indent=2)}
    path.write_text("\ufeff" + texts.get(kind, lines + "\n"), encoding="utf-8")
    assert list(read_text_rows(path, done)) == ROWS[done:]


@pytest.mark.parametrize("done", [0, 1])
def test_cells_of_a_csv_stay_as_they_are_written(tmp_path: Path, done: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf\ncode,text\r\n\r\n007,"two\r\nlines, ""quoted"""\r\nNA\r\n')
    rows = [{"code": "007", "text": 'two\r\nlines, "quoted"'}, {"code": "NA", "text": None}]
    assert list(read_text_rows(path, done)) == rows[done:]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', ":3: row 2 is no JSON: expecting value."),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ':2: row 2 is no JSON object. Write {"column": value, ...}.'),
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n',
         ":2: row 2 is no UTF-8 text: its line has the byte 0xe9 at place 11. Save the file as UTF-8."),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 900 + b"\n",
         ":2: row 2 is longer than 512 bytes. Cut it into several rows, or leave it out."),
        ("a.json", b'[{"a": 1}, {"a": ', ", row 2: is no JSON: expecting value."),
        ("a.json", b'[{"a": 1} {"a": 2}]', ", row 2: is no JSON: no comma before it, or the list is not closed."),
        ("a.json", b'[{"a": 1}, {"a": 2}', ", row 3: is no JSON: no comma before it, or the list is not closed."),
        ("a.json", b'[{"a": 1}, 2]', ', row 2: is no JSON object. Write {"column": value, ...}.'),
        ("a.json", b'[{"a": 1}, {"a": "caf\xe9"}]',
         ", row 2: is no UTF-8 text: it has the byte 0xe9. Save the file as UTF-8."),
        ("a.json", b'[{"a": 1}, {"a": "' + b"x" * 900 + b'"}]',
         ", row 2: is longer than 512 bytes. Cut it into several rows, or leave it out."),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", ":3: row 2 has 3 cells, and the header 2. Put commas in quotes."),
        ("a.csv", b"a,b,a\n1,2,3\n", ':1: the header has "a" twice. Rename one.'),
        ("a.csv", b'a,b\n1,2\n1,"2\n', ":4: row 2 is no csv: unexpected end of data. Is a quote not closed?"),
        ("a.csv", b'a,b\n1,"2"x\n', ":2: row 1 is no csv: ',' expected after '\"'. Write a quote in a cell as \"\"."),
        ("a.csv", b"a,b\n1,2\ncaf\xe9,2\n",
         ":3: row 2 is no UTF-8 text: its line has the byte 0xe9 at place 4. Save the file as UTF-8."),
        ("a.csv", b'a,b\n1,"' + b"x\n" * 400 + b'"\n',
         ":258: row 1 has a cell of more than 512 characters. Cut it into several rows, or leave it out."),
    ],
)  # fmt: skip
def test_a_broken_row_is_named_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: bytes, message: str
) -> None:
    monkeypatch.setattr(textrows, "LONGEST", 512)
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(UserError) as error:
        list(read_text_rows(path))
    assert str(error.value) == f"{path}{message}"


def test_a_hundred_megabytes_in_one_field_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "x" * 100_000_000 + '"}\n')
    with pytest.raises(UserError) as error:
        list(read_text_rows(path))
    fix = "Cut it into several rows, or leave it out."
    assert str(error.value) == f"{path}:2: row 2 is longer than 33,554,432 bytes. {fix}"
