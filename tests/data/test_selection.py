"""The selection: which rows are held out and which are left out, the same in every run."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcft.data import facts
from hpcft.data.rows import Row
from hpcft.data.selection import Selection
from hpcft.data.source import in_source, selection_of, split_rows
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from tests.parts import make_tiny_gpt2, sentences

SPLITS = ("train", "validation", "test")


def news(count: int) -> list[Row]:
    """Rows with a mood, of which one in ten is rare."""
    some, chance = sentences(random.Random(0)), random.Random(1)
    return [
        {"n": n, "text": f"{next(some)} {n}", "mood": chance.choice(["up"] * 6 + ["down"] * 3 + ["flat"])}
        for n in range(count)
    ]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(path: Path, **data: Any) -> Recipe:
    values = {
        "name": "r",
        "task": data.pop("task", "corpus"),
        "model": {"path": data.pop("model", "/m")},
        "data": {"train": path, **data},
    }
    return Recipe.model_validate_json(json.dumps(values, default=str))


def numbers(made: Recipe, split: str, store: Path | None = None) -> list[int]:
    return [row["n"] for row in split_rows(made, split, store=store)]


def chosen(made: Recipe, split: str, store: Path | None = None) -> Selection:
    found = selection_of(made, split, store)
    assert found is not None
    return found


# --- splits ---


@pytest.mark.parametrize("asked", [{"validation": 0.02, "test": 0.1}, {"validation": 20, "test": 100}])
def test_a_stratified_split_has_each_class_in_each_part_and_each_row_once(
    tmp_path: Path, asked: dict[str, float]
) -> None:
    rows = news(1000)
    made = recipe(write(tmp_path / "a.jsonl", rows), split={**asked, "by": "mood"})
    parts = {split: numbers(made, split) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 880, "validation": 20, "test": 100}
    assert sorted(number for part in parts.values() for number in part) == list(range(1000))
    assert all(part == sorted(part) for part in parts.values())
    whole = Counter(row["mood"] for row in rows)
    for part in parts.values():
        for mood, count in Counter(rows[number]["mood"] for number in part).items():
            assert abs(count - whole[mood] * len(part) / 1000) < 1


def test_the_held_out_rows_hang_on_the_rows_and_the_seed_and_not_on_their_order(tmp_path: Path) -> None:
    rows = news(300)
    shuffled = random.Random(2).sample(rows, 300)
    split = {"test": 0.1, "by": "mood"}
    one = numbers(recipe(write(tmp_path / "a.jsonl", rows), split=split), "test")
    assert sorted(numbers(recipe(write(tmp_path / "b.jsonl", shuffled), split=split), "test")) == one
    grown = numbers(recipe(write(tmp_path / "c.jsonl", news(330)), split=split), "test")
    assert len(set(one) & set(grown)) >= 24
    assert numbers(recipe(tmp_path / "a.jsonl", split={**split, "seed": 1}), "test") != one
    # What is filtered from the training rows, or how long they may be, has no part in it.
    assert numbers(recipe(tmp_path / "a.jsonl", split=split, filter={"diverse": 50}, max_length=9), "test") == one


def test_rows_that_say_the_same_are_never_on_both_sides(tmp_path: Path) -> None:
    rows = [{"n": n, "text": f"text {n % 40}"} for n in range(200)]
    made = recipe(write(tmp_path / "a.jsonl", rows), split={"test": 0.23, "validation": 0.1})
    texts = [{row["text"] for row in split_rows(made, split)} for split in SPLITS]
    assert sum(map(len, texts)) == 40
    assert len(texts[2]) == 9


def test_a_class_of_one_row_stays_to_be_learnt(tmp_path: Path) -> None:
    rows = [{"n": n, "text": str(n), "mood": "rare" if n == 7 else "common"} for n in range(10)]
    made = recipe(write(tmp_path / "a.jsonl", rows), split={"test": 0.5, "validation": 0.3, "by": "mood"})
    assert 7 in numbers(made, "train")


def test_a_split_is_stored_and_taken_from_there_by_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(write(tmp_path / "a.jsonl", news(100)), split={"test": 0.1})
    first = numbers(made, "test", tmp_path / ".splits")
    [folder] = (tmp_path / ".splits").iterdir()
    monkeypatch.setattr("hpcft.data.selection.read_facts", None)  # it would be called
    again = recipe(tmp_path / "a.jsonl", split={"test": 0.1}, max_length=7)
    assert numbers(again, "test", tmp_path / ".splits") == first
    assert chosen(again, "train", tmp_path / ".splits").fingerprint == folder.name


def test_a_cut_while_rows_are_looked_at_loses_a_shard_at_most_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "CHUNK", 10)
    monkeypatch.setattr(facts, "SHARD", 2)
    made = recipe(write(tmp_path / "a.jsonl", news(100)), split={"test": 0.3}, filter={"diverse": 20})
    whole = chosen(made, "train")
    looked: list[int] = []
    hashes = facts.word_sums

    def counted(texts: list[str]) -> Any:
        looked.append(len(texts))
        return hashes(texts)

    def poll() -> None:
        if len(looked) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(facts, "word_sums", counted)
    with pytest.raises(KeyboardInterrupt):
        selection_of(made, "train", tmp_path / ".splits", None, poll)
    found = selection_of(made, "train", tmp_path / ".splits", None, lambda: None)
    assert found is not None
    assert (found.rows.tolist(), found.report) == (whole.rows.tolist(), whole.report)
    assert sum(looked) == 70 + 40
    assert [path.name for path in (tmp_path / ".splits").iterdir()] == [found.fingerprint]


@pytest.mark.parametrize("done", [0, 1, 17, 89, 90, 91])
def test_chosen_rows_are_read_from_anywhere_on(tmp_path: Path, done: int) -> None:
    made = recipe(write(tmp_path / "a.jsonl", news(100)), split={"test": 10})
    assert list(split_rows(made, "train", done)) == list(split_rows(made, "train"))[done:]


# --- filters ---

MESS: list[Row] = [
    {"id": 1, "text": "one two", "mood": "up"},
    {"id": 2, "text": " ", "mood": "up"},
    {"id": 3, "text": None, "mood": "up"},
    {"id": 4, "mood": "up"},
    {"id": 5, "text": "one two", "mood": "up"},
    {"id": 1, "text": "three four", "mood": "up"},
    {"id": 6, "text": "five " * 50, "mood": "down"},
    {"id": None, "text": "six seven eight", "mood": "down"},
    {"text": "nine ten", "mood": "up"},
    {"text": "eleven twelve", "mood": "up"},
]


def test_each_filter_says_how_many_rows_it_has_removed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2")
    keep = {"empty": "drop", "duplicates": "drop", "min_tokens": 2, "max_tokens": 40, "balance": "mood"}
    made = recipe(write(tmp_path / "a.jsonl", MESS), filter=keep, model=model)
    found = chosen(made, "train")
    removed = {"empty": 3, "duplicates": 2, "min_tokens": 0, "max_tokens": 1, "balance": 2}
    assert found.report == {"of": 10, "removed": removed, "rows": 2}
    words = "2 of 10 rows (3 empty, 2 duplicates, 0 min_tokens, 1 max_tokens, 2 balance left out)"
    assert found.words() == words
    assert sorted(row["mood"] for row in split_rows(made, "train")) == ["down", "up"]


def test_tokens_are_counted_with_the_end_of_text(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from transformers import AutoTokenizer

    model = make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(tokenizer(row["text"])["input_ids"]) + 1 for row in news(60)]
    middle = sorted(lengths)[30]
    made = recipe(
        write(tmp_path / "a.jsonl", news(60)), filter={"min_tokens": middle, "max_tokens": middle}, model=model
    )
    assert numbers(made, "train") == [n for n, length in enumerate(lengths) if length == middle]


def test_an_id_that_two_rows_have_is_a_fault_unless_the_filter_says_otherwise(tmp_path: Path) -> None:
    rows = [{"key": n % 3, "n": n, "text": str(n)} for n in range(5)]
    path = write(tmp_path / "a.jsonl", rows)
    made = recipe(path, columns={"id": "key"})
    with pytest.raises(UserError) as error:
        selection_of(made, "train", tmp_path / ".splits")
    fix = "Make ids unique, or write `filter: {duplicates: drop}` into data, or `keep` if they need not be."
    assert str(error.value) == f"{path}, row 4: its id 0 is that of row 1 too, and so it is with 1 more. {fix}"
    assert numbers(recipe(path, columns={"id": "key"}, filter={"duplicates": "drop"}), "train") == [0, 1, 2]
    assert numbers(recipe(path, columns={"id": "key"}, filter={"duplicates": "keep"}), "train") == [0, 1, 2, 3, 4]


def test_a_diverse_subset_takes_few_of_many_near_copies(tmp_path: Path) -> None:
    some = sentences(random.Random(3))
    copies = [
        f"Please write a function that adds {n} to its argument and gives back the sum of both." for n in range(900)
    ]
    texts = copies + [" ".join(next(some) for _ in range(3)) for _ in range(100)]
    rows = [{"n": n, "text": text} for n, text in enumerate(random.Random(4).sample(texts, 1000))]
    made = recipe(write(tmp_path / "a.jsonl", rows), filter={"diverse": 100})
    picked = list(split_rows(made, "train"))
    assert len(picked) == 100
    of_copies = sum(row["text"].startswith("Please") for row in picked)
    assert of_copies < 60  # any hundred rows would have about 90 of them
    assert numbers(made, "train") == [row["n"] for row in picked]


def test_a_diverse_subset_of_balanced_rows_is_balanced(tmp_path: Path) -> None:
    made = recipe(
        write(tmp_path / "a.jsonl", news(500)), filter={"balance": "mood", "diverse": 31}, split={"test": 0.2}
    )
    counts = Counter(row["mood"] for row in split_rows(made, "train"))
    assert sorted(counts.values()) == [10, 10, 11]
    held = Counter(row["mood"] for row in split_rows(made, "test"))
    assert len(set(held.values())) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"split": {"test": 0.5, "validation": 5}},
            "data.split takes 5 for test and 5 for validation of its 10 rows, which leaves none to learn from. "
            "Ask for less.",
        ),
        (
            {"filter": {"empty": "drop"}, "columns": {"text": "body"}},
            "none of the 10 rows for train is left; left out: 10 empty.",
        ),
    ],
)
def test_a_part_without_rows_is_a_fault(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", news(10))
    with pytest.raises(UserError) as error:
        selection_of(recipe(path, **data), "train")
    assert str(error.value) == f"{path}: {message}"


def test_a_column_that_no_row_has_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"body": row["text"], "mood": row["mood"]} for row in news(10)])
    with pytest.raises(UserError) as error:
        selection_of(recipe(path, split={"test": 2, "by": "mood"}), "train")
    assert str(error.value) == f'{path}, row 1: has no column "text". It has "body", "mood".'
    with pytest.raises(UserError) as error:
        selection_of(recipe(path, split={"test": 2, "by": "kind"}, columns={"text": "body"}), "train")
    assert str(error.value) == f'{path}, row 1: has no column "kind". It has "text", "mood".'


def test_both_ways_to_read_pairs_hold_out_the_same_rows(tmp_path: Path) -> None:
    texts = [{"prompt": f"p{n}", "response_a": f"a{n % 9}", "response_b": "b", "label": "A"} for n in range(90)]
    path = write(tmp_path / "pairs.jsonl", texts)
    apart, together = (
        selection_of(recipe(path, task="prefer", split={"test": 20}, pair=pair), "test")
        for pair in ("apart", "with_prompt")
    )
    assert apart and together and apart.rows.tolist() == together.rows.tolist()


def test_small_classes_keep_a_row_to_learn_from(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "mood": "rare" if n < 2 else "usual"} for n in range(42)]
    path = write(tmp_path / "a.jsonl", rows)
    made = recipe(path, split={"test": 0.5, "validation": 0.4, "by": "mood"})
    assert sum(row["mood"] == "rare" for row in split_rows(made, "train")) == 1


def test_a_fault_in_a_chosen_row_names_its_place_in_the_source() -> None:
    selection = Selection(np.array([4, 9]), {}, "")
    faults = [Fault("a.csv, row 2", "x."), Fault("b.csv, row 1", "y."), Fault("a.csv", "z.")]
    found = in_source(UserError(faults), Path("a.csv"), selection)
    assert [fault.where for fault in found.faults] == ["a.csv, row 10", "b.csv, row 1", "a.csv"]
