"""Saving beside the training: steps go on while a checkpoint is written, and what is saved is a step boundary."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hpcft.disk import read_json, write_json
from hpcft.rundir import RunDir
from hpcft.train import checkpoint, loop, saving, snapshot
from hpcft.train.checkpoint import model_tensors
from hpcft.train.evaluate import Validation
from hpcft.train.final import put_back, write_best
from hpcft.train.snapshot import Snapshot
from hpcft.train.training import Training
from tests.parts import write_rows
from tests.promise import wait_for
from tests.train.pieces import begin, digest, make_run

pytestmark = pytest.mark.slow


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


def test_the_best_weights_are_a_model_of_their_own_that_outlives_the_pruning_and_a_cut(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(parts / "validation.jsonl", 6, seed=2)
    losses = {2: 5.0, 4: 4.0, 6: 4.5, 8: 4.25, 0: 1.0}
    monkeypatch.setattr(loop, "validate", lambda *arguments: Validation(losses[here.position.step]))
    sections = {"data": {"validation": str(parts / "validation.jsonl")}, "evaluate": {"every": 2}}
    train = {"save_every": 1, "keep_checkpoints": 1, "keep_best": True}
    here = whole = begin(make_run(parts, tmp_path / "whole", train, **sections))
    weights: dict[int, Any] = {}
    at_steps(monkeypatch, {step: keep_weights(weights, step) for step in range(1, 9)})
    loop.train(whole)
    best = whole.run.best_model
    assert (whole.position.best, whole.position.best_step) == (4.0, 4), "no loss from before training"
    assert (record := read_json(best / "best.json")) and (record["step"], record["validation_loss"]) == (4, 4.0)
    model = AutoModelForCausalLM.from_pretrained(best)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[4][f"model.{name}"]), name
    assert whole.run.saved_steps() == [8]

    def stop(training: Training) -> None:
        training.control.stop_file.touch()

    run = make_run(parts, tmp_path / "cut", train, **sections)
    with monkeypatch.context() as patch:
        at_steps(patch, {5: stop})
        here = begin(run)
        assert loop.train(here) == "stopped"
    here = begin(run, 2)
    assert (here.position.best, here.position.best_step) == (4.0, 4)
    before = (run.best_model / "best.json").read_bytes()
    loop.train(here)
    assert (run.best_model / "best.json").read_bytes() == before, "5 and 4.5 are no better"
    assert digest(here) == digest(whole)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_the_copy_is_made_while_the_next_gradient_is_computed_and_the_update_waits_for_it(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(parts, tmp_path / "run", {"steps": 4, "save_every": 3, "keep_checkpoints": 5})
    training, forward = begin(run), threading.Event()
    states: dict[int, str] = {}
    copies: list[bool] = []
    copy = snapshot.copy

    def late_copy(*tensors: Any) -> None:
        assert forward.wait(60), "the next step must not wait for the copy"
        time.sleep(0.005)
        copy(*tensors)
        copies.append(True)

    def look(training: Training) -> None:
        states[3] = digest(training)
        training.wrapped.register_forward_hook(lambda *arguments: forward.set())

    monkeypatch.setattr(snapshot, "copy", late_copy)
    everything = 4 * len(model_tensors(training.model))  # weight, two moments, and a count of steps
    at_steps(monkeypatch, {3: look, 4: lambda training: states.update({4: f"{len(copies)} of {everything}"})})
    loop.train(training)
    assert run.saved_steps() == [3, 4]
    assert states[4] == f"{everything} of {everything}", "the weights changed before the copy was whole"
    shutil.rmtree(run.checkpoints / "step-00000004")
    assert digest(begin(run, 2)) == states[3] != digest(training)


def test_where_the_host_has_no_memory_for_a_copy_training_waits_for_the_disk(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = begin(make_run(parts, tmp_path / "whole", {"save_every": 3}))
    loop.train(whole)
    monkeypatch.setattr(saving, "available", lambda: 500_000)
    monkeypatch.setattr(Snapshot, "take", None)
    training = begin(run := make_run(parts, tmp_path / "poor", {"save_every": 3}))
    at_steps(monkeypatch, {4: lambda training: assert_saved(run, 3)})
    loop.train(training)
    words = "hpcft: a copy of 0.0 GB has no room in the 0.0 GB that the host has left: training waits for each save."
    assert capsys.readouterr().out.count(words) == 1
    assert digest(training) == digest(whole)
    (run.path / "finished.json").unlink()
    assert digest(begin(run, 2)) == digest(whole)


def assert_saved(run: RunDir, step: int) -> None:
    assert run.saved_steps() == [step]


def flip(folder: Path) -> None:
    """Change the last byte of the weights, when all before it have been put in place."""
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def forget(folder: Path) -> None:
    """Leave the optimizer's state out, as if it had never been."""
    (folder / "optimizer.safetensors").unlink()
    manifest = read_json(folder / "manifest.json") or {}
    del manifest["files"]["optimizer.safetensors"]
    write_json(folder / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("harm", "words"),
    [(flip, "model.safetensors is not what was written"), (forget, "has no optimizer.safetensors")],
)
def test_what_is_damaged_is_passed_over_while_it_is_read_and_nothing_of_it_stays(
    parts: Path, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    run = make_run(parts, tmp_path / "run", {"save_every": 4})
    whole = begin(run)
    loop.train(whole)
    assert run.saved_steps() == [4, 8]
    harm(run.checkpoints / "step-00000008")
    again = begin(run, 2)
    resumed = read_json(run.job(2).path / "resumed.json") or {}
    assert resumed["step"] == 4 and resumed["passed_over"][0].startswith("checkpoint of step 8: ")
    assert words in resumed["passed_over"][0]
    loop.train(again)
    assert digest(again) == digest(whole)


KINDS: dict[str, dict[str, Any]] = {"whole": {}, "part": {"model": {"freeze": 1}}, "adapters": {"lora": {"rank": 2}}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_model_is_as_it_stood_at_the_copy_whatever_is_trained(parts: Path, tmp_path: Path, kind: str) -> None:
    training = begin(make_run(parts, tmp_path / "run", {}, **KINDS[kind]))
    copy = Snapshot(cuda=False)
    copy.take({"model": model_tensors(training.model)})
    training.model.write(tmp_path / "before")
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter += parameter.requires_grad
    write_best(training, copy.tensors("model"), 1.0, 5)
    training.model.write(tmp_path / "after")
    (file,) = (tmp_path / "before").glob("*.safetensors")
    best = load_file(training.run.best_model / file.name)
    before, after = load_file(file), load_file(tmp_path / "after" / file.name)
    assert best.keys() == before.keys()
    assert all(torch.equal(best[name], before[name]) for name in before)
    assert any(not torch.equal(after[name], before[name]) for name in before)


def keep_weights(kept: dict[int, Any], step: int) -> Callable[[Training], None]:
    def keep(training: Training) -> None:
        kept[step] = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}

    return keep


def test_a_kill_between_two_renames_leaves_the_best_model(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {})
    (run.path / ".replaced-best").mkdir()
    put_back(run)
    assert run.best_model.is_dir()


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
