"""Documents to csv: one a row, as they are, and those that cannot be used by name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hpcft.data.rows import read_rows
from tests.desk import Desk, make_desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


TEXTS = {f"docs/{n}.txt": f'Line one of {n}, "quoted",\r\n\r\nline two;\ttab\n' for n in range(18)}


def test_each_document_is_a_row_with_its_line_breaks_and_quotes(desk: Desk) -> None:
    for name, text in TEXTS.items():
        desk.write(name, text)
    desk.write("docs/deep/er/a.md", "\ufeff# Title\nüñ")
    desk.write("docs/copy.md", TEXTS["docs/3.txt"])
    desk.write("docs/blank.txt", " \n")
    desk.write("docs/picture.png", b"\xff\xfe")
    said = desk.run("data", "csv", "docs", "--out", "made", "--validation", "0.2")
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "made/train.csv: 15 documents\nmade/validation.csv: 4 documents\n"
        "left out: 1 empty, 1 that say the same as another\n"
    )
    found = [row for name in ("train", "validation") for row in read_rows(desk.folder / f"made/{name}.csv")]
    texts = {name.removeprefix("docs/"): text for name, text in TEXTS.items()} | {"deep/er/a.md": "# Title\nüñ"}
    assert {row["document"]: row["text"] for row in found} == texts
    with (desk.folder / "made/train.csv").open(newline="") as file:  # as any other reader of csv
        assert [row["text"] for row in csv.DictReader(file)] == [row["text"] for row in found[:15]]


def test_what_is_held_out_hangs_on_the_documents_and_the_seed(desk: Desk) -> None:
    for name, text in TEXTS.items():
        desk.write(name, text)
    for number in range(18):
        desk.write(f"moved/z{17 - number}.txt", TEXTS[f"docs/{number}.txt"])
    held = []
    for folder, seed in (("docs", 0), ("moved", 0), ("docs", 1)):
        assert desk.run("data", "csv", folder, "--out", f"{folder}{seed}", "--seed", str(seed)).code == 0
        held.append({row["text"] for row in read_rows(desk.folder / f"{folder}{seed}/validation.csv")})
    assert held[0] == held[1] != held[2]


def test_documents_that_cannot_be_used_are_named_together_and_nothing_is_written(desk: Desk) -> None:
    desk.write("docs/a.txt", b"fine\ncaf\xe9")
    desk.write("docs/b.txt", "x" * ((1 << 25) + 1))
    desk.write("docs/c.txt", "fine")
    before = desk.tree()
    assert desk.run("data", "csv", "docs").err.splitlines() == [
        "hpcft: docs/a.txt: is no UTF-8 text: line 2 has the byte 0xe9. Save it as UTF-8.",
        "hpcft: docs/b.txt: has 33,554,433 bytes; 33,554,432 is the most. Cut it into several documents.",
    ]
    assert desk.tree() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: is no folder. Name a folder of documents."),
        (["model"], "model: holds no document that ends in .txt or .md; there are: 1 .json. "
         "Name another ending with --ending."),
        (["model", "--ending", ".json"], "model: holds 1 documents with text; two are the least."),
        (["model", "--validation", "1"], "--validation: 1 is no share below 1. Write 0.1 for a tenth."),
        ([".", "--ending", ".md", "--out", "there"],
         "there/train.csv: exists. Name another folder with --out, or remove it."),
    ],
)  # fmt: skip
def test_what_makes_no_file_is_refused(desk: Desk, arguments: list[str], message: str) -> None:
    desk.write("there/train.csv", "text\n")
    said = desk.run("data", "csv", *arguments)
    assert (said.code, said.err) == (2, f"hpcft: {message}\n")
