"""Data files, whole and broken."""

from __future__ import annotations

from pathlib import Path

import pandas
import pyarrow
import pytest
from pyarrow.parquet import write_table

from hpcft import parquetrows
from hpcft.data import rows
from hpcft.data.rows import read_rows
from hpcft.errors import UserError


def test_a_csv_keeps_its_cells_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('code,text\n007,NA\n1.50,"two\nlines, ""quoted"""\n')
    assert read_rows(path) == [{"code": "007", "text": "NA"}, {"code": "1.50", "text": 'two\nlines, "quoted"'}]


def test_jsonl_and_parquet_bring_the_same_rows(tmp_path: Path) -> None:
    made = [{"text": "a", "label": "x"}, {"text": "ü\n", "label": "y"}]
    pandas.DataFrame(made).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    pandas.DataFrame(made).to_parquet(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.jsonl") == read_rows(tmp_path / "rows.parquet") == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": \n', ":3: row 2 is no JSON: expecting value."),
        ('{"a": 1}\n[1]\n', ':2: row 2 is no JSON object. Write {"column": value, ...}.'),
        ("\n\n", ": holds no row."),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_rows(path)
    assert str(error.value) == f"{path}{message}"


def test_a_text_of_a_parquet_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, words = tmp_path / "rows.parquet", ["short"] * 5
    monkeypatch.setattr(parquetrows, "LONGEST", 50)
    monkeypatch.setattr(parquetrows, "PIECE", 2)

    def message(texts: list[bytes], done: int) -> str:
        binary = pyarrow.array(texts)
        array = pyarrow.StringArray.from_buffers(len(texts), binary.buffers()[1], binary.buffers()[2])
        write_table(pyarrow.table({"id": range(len(texts)), "text": array}), path, row_group_size=4)
        with pytest.raises(UserError) as error:
            list(rows.rows_behind(path, done))
        return str(error.value).removeprefix(f"{tmp_path}/")

    good = [word.encode() for word in words]
    for done in (0, 3, 5):
        assert message([*good, b"x" * 51, b""], done) == (
            'rows.parquet, row 6: its "text" is longer than 50 bytes. Cut it into several rows, or leave it out.'
        )
        assert message([*good, "caf\u00e9".encode("latin-1"), b""], done) == (
            'rows.parquet, row 6: its "text" is no UTF-8 text: byte 0xe9 at 4. Write it as UTF-8.'
        )
