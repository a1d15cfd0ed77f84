"""The features of a run: made once, whoever needs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcft.data.features import Features
from hpcft.disk import read_json
from hpcft.errors import UserError
from hpcft.rundir import RunDir
from hpcft.tasks import instruct
from hpcft.train.control import Stop
from tests.train.pieces import begin, make_run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def count_chunks(patch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of the tokenizer from here on, in chunks of 5 rows."""
    calls: list[int] = []
    tokenize = instruct.tokenize

    def counted(tokenizer: Any, texts: Any) -> Any:
        calls.append(len(texts))
        return tokenize(tokenizer, texts)

    patch.setattr(instruct, "tokenize", counted)
    patch.setattr(instruct, "CHUNK", 5)
    return calls


def test_a_second_run_of_the_same_rows_tokenises_nothing_and_keeps_what_it_took(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_chunks(monkeypatch)
    first = begin(make_run(parts, tmp_path / "first", {}))
    assert calls == [5] * 12
    second = begin(make_run(parts, tmp_path / "second", {"seed": 1}))
    assert calls == [5] * 12
    assert first.train.fingerprint == second.train.fingerprint
    shutil.rmtree(tmp_path / ".features")
    shutil.rmtree(tmp_path / "first")
    again = begin(RunDir(tmp_path / "second"), 2)
    assert [again.train[row][0].tolist() for row in range(60)] == [second.train[row][0].tolist() for row in range(60)]
    assert len(calls) == 12


@pytest.mark.parametrize("change", [{"max_length": 127}, {"loss_on": "full"}])
def test_features_that_would_differ_are_made(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    calls = count_chunks(monkeypatch)
    begin(make_run(parts, tmp_path / "first", {}))
    begin(make_run(parts, tmp_path / "second", {}, data=change))
    assert len(calls) == 24


def test_a_stop_while_rows_are_tokenised_leaves_them_to_the_next_job(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = begin(make_run(parts, tmp_path / "a" / "whole", {}))
    calls = count_chunks(monkeypatch)
    monkeypatch.setattr("hpcft.data.preparation.SHARD", 2)
    run = make_run(parts, tmp_path / "b" / "cut", {})
    (run.path / "scratch-1").mkdir()
    tokenize = instruct.tokenize

    def stopped_at_the_seventh(tokenizer: Any, texts: Any) -> Any:
        if len(calls) == 6:
            (run.path / "scratch-1" / "stop").touch()
        return tokenize(tokenizer, texts)

    monkeypatch.setattr(instruct, "tokenize", stopped_at_the_seventh)
    with pytest.raises(Stop):
        begin(run)
    assert (len(calls), (read_json(run.features / ".train.part" / "progress.json") or {})["rows"]) == (7, 30)
    made: Features = begin(run, 2).train
    assert "hpcft: 30 rows of rows.jsonl were tokenised before\n" in capsys.readouterr().out
    assert len(calls) == 7 + 6  # the last 30 rows
    assert made.fingerprint == whole.train.fingerprint


def test_what_a_filter_has_removed_is_in_the_log_and_in_the_run(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"split": {"validation": 0.1, "test": 12}, "filter": {"diverse": 20}}
    one = begin(make_run(parts, tmp_path / "one", {}, data=drawn))
    assert capsys.readouterr().out.splitlines()[:2] == [
        "hpcft: train: 20 of 42 rows (22 diverse left out) of rows.jsonl",
        "hpcft: validation: 6 of 6 rows of rows.jsonl",
    ]
    assert (len(one.train), len(one.validation or ())) == (20, 6)
    assert one.run.rows["train"] | {"fingerprint": "", "source": ""} == {
        "source": "", "of": 42, "removed": {"diverse": 22}, "rows": 20, "fingerprint": "",
    }  # fmt: skip
    again = begin(make_run(parts, tmp_path / "two", {"seed": 1}, data=drawn))
    assert (again.train.fingerprint, again.run.rows) == (one.train.fingerprint, one.run.rows)
    other = begin(make_run(parts, tmp_path / "three", {}, data={**drawn, "filter": {"diverse": 19}}))
    assert other.train.fingerprint != one.train.fingerprint


def test_a_fault_in_a_row_that_was_chosen_names_its_row_in_the_file(parts: Path, tmp_path: Path) -> None:
    rows = [{"question": f"Who waits {n}?", "answer": "Me. " * (200 if n == 30 else 1)} for n in range(40)]
    rows[30] = {"question": "Who? " * 200, "answer": "Me."}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run(parts, tmp_path / "runs" / "one", {}, data={"train": str(path), "split": {"test": 5, "seed": 3}})
    with pytest.raises(UserError) as error:
        begin(run)
    assert str(error.value).startswith(f"{path}, row 31: its prompt alone has ")


def test_what_became_of_the_test_rows_is_told_too(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"split": {"test": 12}, "filter": {"max_tokens": 1000, "duplicates": "drop"}}
    rows = [{"question": f"Is {n} even?", "answer": "no" if n % 2 else "yes"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data["train"] = str(tmp_path / "rows.jsonl")
    run = begin(make_run(parts, tmp_path / "runs" / "one", {}, data=data, evaluate={"choices": ["yes", "no"]})).run
    assert "hpcft: test: 12 of 12 rows (0 duplicates, 0 max_tokens left out) of rows.jsonl\n" in capsys.readouterr().out
    assert set(run.rows) == {"train", "test"}
