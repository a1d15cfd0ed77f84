"""Sources: one set of rows, whatever it is kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from hpcft.data.rows import Row
from hpcft.data.source import source_hash, split_rows
from hpcft.errors import UserError
from hpcft.recipe import Recipe

ROWS: list[Row] = [
    {"id": number, "headline": f"row {number}\n", "mood": ["bad", "good"][number % 2]} for number in range(9)
]


def recipe(**data: Any) -> Recipe:
    """A corpus of these data."""
    values = {"name": "r", "task": "corpus", "model": {"path": "/m"}, "data": data}
    return Recipe.model_validate_json(json.dumps(values, default=str))


def write(folder: Path, kind: str) -> str:
    """What a recipe calls these rows, kept in this way."""
    folder.mkdir(exist_ok=True)
    path = folder / f"rows.{kind}"
    table = pandas.DataFrame(ROWS)
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif kind == "json":
        table.to_json(path, orient="records")
    elif kind == "parquet":
        table.to_parquet(path, row_group_size=4)
    else:
        words = datasets.ClassLabel(names=["bad", "good"])
        made = datasets.Dataset.from_list(ROWS).cast_column("mood", words)
        path = folder / "saved"
        both = datasets.DatasetDict({"train": made, "dev": made.select([1, 2])})
        (made if kind == "saved" else both).save_to_disk(path)
    return f"{path}:dev" if kind == "saved:dev" else str(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "saved", "saved splits", "saved:dev"])
def test_every_kind_of_source_brings_the_same_rows_from_anywhere_on(tmp_path: Path, kind: str) -> None:
    wanted = ROWS[1:3] if kind == "saved:dev" else ROWS
    made = recipe(train=write(tmp_path, kind))
    for done in (0, 1, 5, 8, 9):
        assert list(split_rows(made, "train", done)) == wanted[done:]


def test_columns_are_called_as_the_task_calls_them(tmp_path: Path) -> None:
    made = recipe(train=write(tmp_path, "jsonl"), columns={"text": "headline", "mood": "id", "id": "mood"})
    assert next(iter(split_rows(made, "train", 1))) == {"text": "row 1\n", "mood": 1, "id": "good"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"columns": {"text": "body"}},
            '{0}, row 1: has no column "body", which data.columns names. It has "id", "headline", "mood".',
        ),
        ({"train": "{1}"}, "{1}: cannot be loaded: "),
        pytest.param({"train": "nobody/nothing"}, "nobody/nothing: cannot be loaded: ", marks=pytest.mark.slow),
        ({"train": "{2}:test"}, '{2}: has no split "test". It has "train", "dev"; write `{2}:NAME` for one of them.'),
    ],
)
def test_a_source_that_has_it_not_is_named(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    names = (write(tmp_path, "jsonl"), str(tmp_path), write(tmp_path, "saved splits"))
    values = {"train": names[0], **data}
    values["train"] = values["train"].format(*names)
    with pytest.raises(UserError) as error:
        list(split_rows(recipe(**values), "train"))
    assert str(error.value).startswith(message.format(*names))


@pytest.mark.parametrize("kind", ["jsonl", "saved", "saved splits"])
def test_the_hash_of_a_source_is_that_of_its_rows(tmp_path: Path, kind: str) -> None:
    made = recipe(train=write(tmp_path, kind))
    before = source_hash(made, "train")
    assert source_hash(recipe(train=write(tmp_path / "copy", kind)), "train") == before
    ROWS[3]["headline"] = "another"
    try:
        assert source_hash(recipe(train=write(tmp_path / "other", kind)), "train") != before
    finally:
        ROWS[3]["headline"] = "row 3\n"
