"""Saving beside the training: steps go on while a checkpoint is written, and what is saved is a step boundary."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcft.rundir import RunDir, read_json
from hpcft.train import checkpoint, loop
from hpcft.train.training import Training
from tests.promise import wait_for
from tests.train.pieces import begin, digest, make_run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saving")


def at_steps(monkeypatch: pytest.MonkeyPatch, deeds: dict[int, Callable[[Training], None]]) -> None:
    """Do something when a step of this number has been made, before anything is due at it."""
    one_step = loop.one_step

    def step(training: Training, batches: Any, number: int) -> Any:
        result = one_step(training, batches, number)
        deeds.get(number + 1, lambda training: None)(training)
        return result

    monkeypatch.setattr(loop, "one_step", step)


def said(training: Training) -> dict[str, Any]:
    """What the supervisor hears at this moment."""
    training.progress.say()
    return read_json(training.progress.path) or {}


def test_steps_are_made_while_a_checkpoint_is_written_and_a_resume_from_it_is_exact(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = begin(make_run(parts, tmp_path / "whole", {"save_every": 3}))
    loop.train(whole)
    run = make_run(parts, tmp_path / "slow", {"save_every": 3})
    training, go_on, saves = begin(run), threading.Event(), []
    save = checkpoint.save

    def slow_save(run: RunDir, state: Any, *others: Any) -> Path:
        saves.append(state["step"])
        assert go_on.wait(60)
        return save(run, state, *others)

    def look(training: Training) -> None:
        told = said(training)
        assert told["saving_since"] and "saved_step" not in told and run.saved_steps() == []
        go_on.set()
        training.progress.facts["seen"] = True

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", slow_save)
        # Step 6 falls due while the save of step 3 is in flight, and is put off to step 7 or 8.
        at_steps(patch, {6: look})
        assert loop.train(training) == "finished"
    assert training.progress.facts["seen"] and saves[0] == 3 and saves[-1] == 8
    told = said(training)
    assert told["saving_since"] is None and told["saved_step"] == 8 and told["save_fault"] is None
    assert 0 < told["save_stall_seconds"] < told["save_seconds"]
    assert digest(training) == digest(whole)
    for step in run.saved_steps()[1:]:
        for path in (run.checkpoints / f"step-{step:08d}").iterdir():
            path.unlink()
    (first, *_) = run.saved_steps()
    (run.path / "finished.json").unlink()
    again = begin(run, 2)
    assert again.position.step == first < 8
    loop.train(again)
    assert digest(again) == digest(whole)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB: a few checkpoints of 0.7 MB have room."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_training_and_the_old_checkpoint_and_the_next_save_tries_again(
    parts: Path, tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = begin(make_run(parts, tmp_path / "whole", {"save_every": 1}))
    loop.train(whole)
    run = make_run(parts, small / "run", {"save_every": 1, "keep_checkpoints": 1})
    training, ballast = begin(run), small / "ballast"
    faults: list[str] = []

    def fill(training: Training) -> None:
        wait_for(run.saved_steps)
        with ballast.open("wb") as file:
            free = os.statvfs(small)
            file.write(bytes(free.f_bavail * free.f_frsize - 100_000))

    def empty(training: Training) -> None:
        assert (newest := checkpoint.newest_valid(run)[0]) and newest.step < 5, "as it was"
        faults.append(training.progress.facts["save_fault"])
        ballast.unlink()

    at_steps(monkeypatch, {3: fill, 6: empty})
    assert loop.train(training) == "finished"
    assert digest(training) == digest(whole)
    (fault,) = faults
    assert "could not be written: no space left on device: it takes 0." in fault
    assert fault.endswith(" Make room: training goes on, what was saved before stays, and the next save tries again.")
    assert f"hpcft: {fault}\n" in capsys.readouterr().out
    assert run.saved_steps() == [8] and said(training)["save_fault"] is None


def test_a_job_whose_last_save_fails_has_failed_and_keeps_what_was_saved_before(
    parts: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(parts, small / "run", {"save_every": 3})
    training = begin(run)

    def fill(training: Training) -> None:
        wait_for(run.saved_steps)
        with (small / "ballast").open("wb") as file:
            free = os.statvfs(small)
            file.write(bytes(free.f_bavail * free.f_frsize - 100_000))
        training.control.stop_file.touch()

    at_steps(monkeypatch, {5: fill})
    with pytest.raises(OSError, match="No space left on device: it takes 0"):
        loop.train(training)
    assert run.saved_steps() == [3] and checkpoint.newest_valid(run)[0]
