"""Preparation: a cut loses a shard at most, and what one run has tokenised another need not."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcft.data import preparation, shared
from hpcft.data.features import Feature, Features, stored_features
from hpcft.data.preparation import Chunk, prepare
from hpcft.data.rows import rows_behind
from hpcft.errors import UserError
from hpcft.tasks.corpus import Corpus
from hpcft.tasks.instruct import Instruct
from hpcft.tasks.task import Task
from hpcft.template import PromptTemplate
from tests.parts import train_tokenizer, write_documents, write_rows


class Cut(Exception):
    """Stands for Stop."""


def chunks(count: int, made: list[int] | None = None) -> Callable[[int], Iterator[Chunk]]:
    """Each has one row more than features; `made` hears of each that is made."""

    def behind(done: int) -> Iterator[Chunk]:
        for number in range(done // 3, count):
            if made is not None:
                made.append(number)
            rows = [Feature([number, 1, 2], [True, True, False]), Feature([number, 3], [True, True])]
            yield Chunk(rows, number * 3 + 3)

    return behind


def test_features_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    stored = prepare(tmp_path / "f", "source", chunks(2), lambda: None)
    again = stored_features(tmp_path / "f")
    assert again is not None
    assert [tuple(map(np.ndarray.tolist, again[row])) for row in range(4)] == [
        ([0, 1, 2], [False, True, False]),  # nothing stands before the first token to predict it from
        ([0, 3], [False, True]),
        ([1, 1, 2], [False, True, False]),
        ([1, 3], [False, True]),
    ]
    assert (again.targets.tolist(), again.lengths.tolist(), len(again)) == ([1] * 4, [3, 2] * 2, 4)
    assert again.fingerprint == stored.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


def test_a_cut_loses_less_than_a_shard_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "SHARD", 3)
    whole = prepare(tmp_path / "whole", "source", chunks(10), lambda: None)
    for after in range(1, 11):
        made: list[int] = []

        def poll(made: list[int] = made, after: int = after) -> None:
            if len(made) == after:
                raise Cut

        folder = tmp_path / f"cut-{after}"
        with pytest.raises(Cut):
            prepare(folder, "source", chunks(10, made), poll)
        assert stored_features(folder) is None
        assert prepare(folder, "source", chunks(10, made), lambda: None).fingerprint == whole.fingerprint
        assert len(made) - 10 < 3


@pytest.mark.parametrize("harm", ["other rows", "tokens", "trained", "progress.json"])
def test_what_was_begun_of_other_rows_or_is_damaged_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(preparation, "SHARD", 1)
    whole = prepare(tmp_path / "whole", "source", chunks(5), lambda: None)
    calls = iter([None, None])
    with pytest.raises(StopIteration):
        prepare(tmp_path / "f", harm if harm == "other rows" else "source", chunks(5), lambda: next(calls))
    if harm == "tokens":
        os.truncate(tmp_path / ".f.part" / harm, 3)
    elif harm != "other rows":
        (tmp_path / ".f.part" / harm).unlink()
    made: list[int] = []
    assert prepare(tmp_path / "f", "source", chunks(5, made), lambda: None).fingerprint == whole.fingerprint
    assert made == [0, 1, 2, 3, 4]


def test_rows_without_text_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "train", "source", lambda done: iter([Chunk([], 4)]), lambda: None)
    assert str(error.value) == "train: its rows hold no text."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["instruct", "corpus"])
def test_killed_at_any_instant_it_ends_with_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, kind: str
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # its threads do not live in a forked child
    monkeypatch.setattr(preparation, "SHARD", 2)
    monkeypatch.setattr(f"hpcft.tasks.{kind}.CHUNK", 7)
    task: Task = Instruct(PromptTemplate("Q: {{question}}\nA: {{answer}}"), tokenizer, 512, full=False)
    path = tmp_path / "rows.jsonl"
    if kind == "instruct":
        write_rows(path, 400)
    else:
        task, path = Corpus("text", tokenizer, 50), write_documents(tmp_path / "rows.csv", 200)

    def make(folder: Path, poll: Callable[[], None]) -> Features:
        return prepare(folder, "s", lambda done: task.chunks(rows_behind(path, done), path, done), poll)

    whole = make(tmp_path / "whole", lambda: None)
    chance, kills, reached = random.Random(0), 0, set()
    while stored_features(tmp_path / "killed") is None:
        child = os.fork()
        if not child:
            try:
                make(tmp_path / "killed", lambda: time.sleep(0.02))  # over half a second in all
            finally:
                os._exit(0 if stored_features(tmp_path / "killed") else 1)
        if kills < 8:
            time.sleep(chance.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
        ending = os.waitpid(child, 0)[1]
        assert ending in (0, signal.SIGKILL)
        kills += ending == signal.SIGKILL
        if record := preparation.read_json(tmp_path / ".killed.part" / "progress.json"):
            reached.add(record["rows"])
    assert kills >= 2
    assert reached  # it was killed on the way, and went on from there
    found = stored_features(tmp_path / "killed")
    assert found is not None
    assert found.fingerprint == whole.fingerprint == preparation.digest(found.folder)


def test_what_one_run_leaves_another_takes_and_keeps(tmp_path: Path) -> None:
    common = tmp_path / "shared"
    assert shared.take(common, "source", tmp_path / "two" / "train") is None
    made = prepare(tmp_path / "one" / "train", "source", chunks(4), lambda: None)
    shared.leave(common, "source", made.folder)
    shared.leave(common, "source", made.folder)  # as a run that was at it at the same time
    assert [path.name for path in common.iterdir()] == ["source"]
    taken = shared.take(common, "source", tmp_path / "two" / "train")
    assert taken is not None
    assert (taken.folder, taken.fingerprint) == (tmp_path / "two" / "train", made.fingerprint)
    shutil.rmtree(common)
    shutil.rmtree(made.folder)
    assert preparation.digest(taken.folder) == taken.fingerprint
    assert [path.name for path in taken.folder.parent.iterdir()] == ["train"]


def test_shared_features_whose_files_have_changed_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(tmp_path / "one", "source", chunks(4), lambda: None)
    shared.leave(tmp_path / "shared", "source", made.folder)
    file = tmp_path / "shared" / "source" / "tokens"
    file.write_bytes(b"\x01" + file.read_bytes()[1:])
    assert shared.take(tmp_path / "shared", "source", tmp_path / "two") is None
    assert capsys.readouterr().out == f"hpcft: passed over {tmp_path / 'shared' / 'source'}: its files have changed\n"


def test_a_place_that_takes_nothing_is_said_and_does_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(tmp_path / "one", "source", chunks(4), lambda: None)
    (tmp_path / "file").write_text("")
    shared.leave(tmp_path / "file", "source", made.folder)
    assert capsys.readouterr().out.startswith("hpcft: features are not shared with other runs: ")


def test_what_no_run_holds_any_more_goes_after_a_month(tmp_path: Path) -> None:
    common = tmp_path / "shared"
    for name in ("held", "left"):
        shared.leave(common, name, prepare(tmp_path / name, name, chunks(4), lambda: None).folder)
    shutil.rmtree(tmp_path / "left")
    for name in ("held", "left"):
        os.utime(common / name, (0, 0))
    shared.leave(common, "new", prepare(tmp_path / "new", "new", chunks(4), lambda: None).folder)
    assert sorted(path.name for path in common.iterdir()) == ["held", "new"]


def test_of_two_runs_of_the_same_rows_the_second_waits_for_the_first(tmp_path: Path) -> None:
    common, looks = tmp_path / "shared", []
    with shared.turn(common, "source", lambda: None):
        process = multiprocessing.get_context("fork").Process(target=take_turn, args=(common, tmp_path / "two"))
        process.start()
        process.join(1.0)
        assert process.is_alive()
        made = prepare(tmp_path / "one" / "train", "source", chunks(4), lambda: looks.append(1))
        shared.leave(common, "source", made.folder)
    process.join(30.0)
    assert process.exitcode == 0, "it has taken over what the first made"
    assert [path.name for path in common.iterdir()] == ["source"]


def take_turn(common: Path, folder: Path) -> None:
    """Exit code 0 if there is something to take over when it is our turn, after a look whether to stop."""
    looks: list[int] = []
    with shared.turn(common, "source", lambda: looks.append(1)):
        found = bool(looks) and shared.take(common, "source", folder) is not None
    os._exit(0 if found else 1)


def test_whoever_waits_for_its_turn_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    with (
        shared.turn(tmp_path / "shared", "source", lambda: None),
        pytest.raises(InterruptedError),
        shared.turn(tmp_path / "shared", "source", stop),
    ):
        pass


def test_where_no_lock_can_be_had_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with shared.turn(tmp_path / "file", "source", lambda: None):
        pass
