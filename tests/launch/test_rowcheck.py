"""The rows before the queue: one fault for each kind of mistake, with the first row that has it."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pandas
import pytest

from hpcft.launch import rowcheck
from hpcft.parquetrows import read_parquet_rows
from tests.desk import Desk, make_desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


GOOD = {"text": "good day", "label": "glad"}


def rows(desk: Desk, *some: dict[str, object], name: str = "train.jsonl") -> None:
    desk.write(name, "".join(json.dumps(row) + "\n" for row in some))


def test_each_kind_of_mistake_is_one_fault_with_its_first_row(desk: Desk) -> None:
    rows(
        desk, GOOD, {"text": "a"}, {"text": None, "label": "sad"}, {**GOOD, "label": " "}, {"text": "b"}, {"text": "c"}
    )
    assert desk.faults() == [
        'train.jsonl, row 2: has no column "label". Likewise 2 rows behind it.',
        'train.jsonl, row 3: "text" has no value.',
        'train.jsonl, row 4: "label" is empty.',
    ]


@pytest.mark.parametrize(
    ("written", "faults"),
    [
        ([{"text": ["good"], "label": "glad"}] * 3, ['row 1: "text" is a list, not text. Likewise 2 rows behind it.']),
        ([GOOD, {"text": b"good", "label": "sad"}], ['row 1: "text" is bytes, not text. Likewise 1 row behind it.']),
        ([GOOD, {"text": None, "label": "sad"}, GOOD], ['row 2: "text" has no value.']),
        ([{**GOOD, "id": 7}, {**GOOD, "id": 7}], ['row 2: its id "7" is that of row 1 too. ' + rowcheck.UNIQUE]),
    ],
)  # fmt: skip
def test_a_parquet_file_is_looked_at_as_a_text_file_is(
    desk: Desk, written: list[dict[str, Any]], faults: list[str]
) -> None:
    if isinstance(written[-1]["text"], bytes):
        written = [{**row, "text": bytes(row["text"], "ascii") if row is GOOD else row["text"]} for row in written]
    pandas.DataFrame(written).to_parquet(desk.folder / "train.parquet")
    desk.change("train: train.jsonl", "train: train.parquet")
    assert desk.faults() == [f"train.parquet, {fault}" for fault in faults]


def test_of_a_large_parquet_file_hardly_anything_is_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"good day {n}", "label": "glad", "picture": random.randbytes(2000)} for n in range(4000)]
    rows[500]["text"] = None
    path = desk.folder / "train.parquet"
    pandas.DataFrame(rows).to_parquet(path)
    monkeypatch.setattr(rowcheck, "WHOLE", 1000)
    desk.change("train: train.jsonl", "train: train.parquet")
    assert desk.faults() == ['train.parquet, row 501: "text" has no value.']
    before = bytes_read()
    some = list(islice(read_parquet_rows(path, columns=["text", "label"], piece=rowcheck.PIECE), 1000))
    assert len(some) == 1000
    assert bytes_read() - before < path.stat().st_size / 4


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_what_is_no_text_is_no_matter_in_a_column_by_which_rows_are_drawn(desk: Desk) -> None:
    rows(desk, *[{**GOOD, "text": f"day {n}", "kind": ["u", "v"]} for n in range(8)])
    desk.accepts("--set", "data.split={test: 2, by: kind}")
    rows(desk, {**GOOD, "text": ["day"]}, {**GOOD, "text": None})
    assert desk.faults("--set", "data.filter={empty: drop}") == ['train.jsonl, row 1: "text" is a list, not text.']


def test_a_parquet_file_without_a_column_or_an_end_is_refused(desk: Desk) -> None:
    desk.change("train: train.jsonl", "train: train.parquet")
    path = desk.folder / "train.parquet"
    pandas.DataFrame([{"body": "good day", "label": "glad"}]).to_parquet(path)
    assert desk.faults() == [
        'demo.yaml:7: train.parquet has no column "text", which prompt.md asks for. It has "body", "label". '
        "Correct prompt.md, or give its name: `columns: {text: ...}` in data."
    ]
    path.write_bytes(path.read_bytes()[:-1])
    (fault,) = desk.faults()
    assert fault.startswith("train.parquet: is no valid parquet: Parquet magic bytes not found in footer.")
    assert fault.endswith("Write it with pandas' to_parquet.")


@pytest.mark.parametrize(
    ("task", "row", "faults"),
    [
        ("corpus", {"text": " \n"}, ['"text" is empty.']),
        ("classify", {"text": "", "label": ""}, ['"text" is empty.', '"label" is empty.']),
        ("entail", {"first": "a", "second": " ", "label": "yes"}, ['"second" is empty.']),
        ("prefer", {"prompt": "", "response_a": "", "response_b": "b", "label": "A"}, ['"response_a" is empty.']),
    ],
)
def test_blanks_are_a_fault_in_all_that_a_task_reads(
    desk: Desk, task: str, row: dict[str, object], faults: list[str]
) -> None:
    good = {name: {"label": "A"}.get(name, "good") for name in row}
    rows(desk, good, {**good, **({"label": "B"} if "label" in row else {})}, row)
    desk.change("task: instruct", f"task: {task}")
    found = [fault for fault in desk.faults("--set", "data.template=null") if "train.jsonl" in fault]
    assert found == [f"train.jsonl, row 3: {fault}" for fault in faults]


def test_a_row_that_cannot_be_read_is_named_beside_the_mistakes_before_it(desk: Desk) -> None:
    desk.write("train.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n{"text": "caf\xe9", "label": "b"}\n')
    assert desk.faults() == [
        'train.jsonl, row 2: has no column "label".',
        "train.jsonl:3: row 3 is no UTF-8 text: its line has the byte 0xe9 at place 14. Save the file as UTF-8.",
    ]


def test_a_completion_that_is_no_choice_is_named(desk: Desk) -> None:
    rows(desk, GOOD, {**GOOD, "label": "gald"}, name="test.jsonl")
    assert desk.faults("--set", "data.test=test.jsonl", "--set", "evaluate.choices=[glad, sad]") == [
        'test.jsonl, row 2: "gald" is none of evaluate.choices. Known: glad, sad.'
    ]


def test_of_a_large_file_only_the_first_rows_are_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowcheck, "WHOLE", 200)
    monkeypatch.setattr(rowcheck, "SOME", 5)
    rows(desk, *[GOOD] * 20, {"text": "a"})
    desk.accepts()
    rows(desk, *[GOOD] * 3, {"text": "a"}, *[GOOD] * 20)
    assert desk.faults() == ['train.jsonl, row 4: has no column "label".']


def test_columns_are_looked_for_under_the_names_of_the_data(desk: Desk) -> None:
    rows(desk, {"body": "good day", "mood": "glad"}, {"body": "bad day"})
    assert desk.faults("--set", "data.columns={text: body, label: mood}") == [
        'train.jsonl, row 2: has no column "mood".'
    ]
    assert desk.faults("--set", "data.columns={text: body, lable: mood}") == [
        '--set data.columns: data.columns.lable: the template reads no "lable". It reads "text", "label".',
        'demo.yaml:7: train.jsonl has no column "label", which prompt.md asks for. It has "body", "mood". '
        "Correct prompt.md, or give its name: `columns: {label: ...}` in data.",
    ]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "saved",
            'saved has no column "label", which prompt.md asks for. It has "text". '
            "Correct prompt.md, or give its name: `columns: {label: ...}` in data.",
        ),
        ("splits:dev", 'splits has no split "dev". It has "train"; write `splits:NAME` for one of them.'),
        ("splits", None),
        ("owner/name", None),  # of the hub: the job will find out
        ("owner/name.jsonl", "owner/name.jsonl cannot be read: no such file or directory. Name a file of rows."),
    ],
)
def test_datasets_are_looked_at_as_far_as_their_own_notes_go(desk: Desk, train: str, message: str | None) -> None:
    for folder, columns in (("saved", ["text"]), ("splits/train", ["text", "label"])):
        desk.write(f"{folder}/dataset_info.json", json.dumps({"features": {name: {} for name in columns}}))
        desk.write(f"{folder}/state.json", "{}")
    desk.write("splits/dataset_dict.json", '{"splits": ["train"]}')
    desk.change("train: train.jsonl", f"train: {train}")
    if message:
        assert desk.faults() == [f"demo.yaml:7: {message}"]
    else:
        desk.accepts()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.split.test=0.1", "data.test=train.jsonl"],
         "--set data.split.test: data.test and data.split.test are both given. Remove one of the two."),
        (["data.split.seed=3"],
         "--set data.split.seed: data.split draws nothing: it has neither validation nor test. "
         "Write `test: 0.1`, or remove it."),
        (["data.split={test: 0.5, validation: 0.5}"],
         "--set data.split: data.split leaves no row to learn from. Ask for less."),
        (["data.split.test=1.5"],
         "--set data.split.test: data.split.test = 1.5 is neither a share below 1 nor a number of rows. "
         "Write 0.1 for a tenth, or 500 for so many rows."),
        (["data.filter={min_tokens: 9, max_tokens: 8}"],
         "--set data.filter: data.filter.min_tokens = 9 is more than max_tokens = 8. Write less."),
        (["data.split={test: 0.1, by: mood}"],
         'demo.yaml:7: train.jsonl has no column "mood". It has "text", "label". '
         "Give its name: `columns: {mood: ...}` in data."),
        (["data.filter.balance=mood"],
         'demo.yaml:7: train.jsonl has no column "mood". It has "text", "label". '
         "Give its name: `columns: {mood: ...}` in data."),
        (["data.split={test: 30, validation: 0.5}"],
         "train.jsonl: data.split takes 30 for test and 1 for validation of its 1 rows, "
         "which leaves none to learn from. Ask for less."),
        (["data.filter.empty=yes"],
         '--set data.filter.empty: data.filter.empty = "yes" is not known. Known here: drop.'),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(desk: Desk, sets: list[str], message: str) -> None:
    assert desk.faults(*(word for text in sets for word in ("--set", text))) == [message]


def test_an_id_that_two_rows_have_is_a_fault_unless_the_filter_says_otherwise(desk: Desk) -> None:
    rows(desk, {**GOOD, "id": 7}, {**GOOD, "id": 8}, {**GOOD, "id": 7}, {**GOOD, "id": "7"})
    fix = "Make ids unique, or write `filter: {duplicates: drop}` into data, or `keep` if they need not be."
    assert desk.faults() == [f'train.jsonl, row 3: its id "7" is that of row 1 too. Likewise 1 row behind it. {fix}']
    for word in ("drop", "keep"):
        desk.accepts("--set", f"data.filter.duplicates={word}")


def test_rows_that_a_filter_drops_are_no_fault(desk: Desk) -> None:
    rows(desk, GOOD, {"text": None, "label": "glad"}, {"text": "a", "label": " "}, {"text": "b"})
    desk.accepts("--set", "data.filter.empty=drop")


def test_a_class_that_only_the_test_has_is_named_with_its_row_before_the_queue(desk: Desk) -> None:
    desk.change("task: instruct", "task: classify")
    desk.change("  template: prompt.md\n", "")
    rows(desk, GOOD, {**GOOD, "label": "sad"}, GOOD)
    rows(desk, GOOD, {**GOOD, "label": "cross"}, {**GOOD, "label": "cross"}, name="test.jsonl")
    assert desk.faults("--set", "data.test=test.jsonl") == [
        'test.jsonl, row 2: "label" is "cross", which no training row has. Likewise 1 row behind it. Known: glad, sad.'
    ]
    assert desk.faults("--set", "data.labels=[glad, cross]") == [
        'train.jsonl, row 2: "label" is "sad", which is none of the classes. Known: cross, glad.'
    ]
