"""Data files, whole and broken."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from hpcft.data.rows import read_rows
from hpcft.errors import UserError


def test_a_csv_keeps_its_cells_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('code,text\n007,NA\n1.50,"two\nlines, ""quoted"""\n')
    assert read_rows(path) == [{"code": "007", "text": "NA"}, {"code": "1.50", "text": 'two\nlines, "quoted"'}]


def test_jsonl_and_parquet_bring_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "ü\n", "label": "y"}]
    pandas.DataFrame(rows).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.jsonl") == read_rows(tmp_path / "rows.parquet") == rows


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
