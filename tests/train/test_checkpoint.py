"""Checkpoints: whole or not there, and believed only when every byte is as it was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hpcft.errors import UserError
from hpcft.rundir import RunDir
from hpcft.sections import Model
from hpcft.train import checkpoint
from hpcft.train.model import LossModel, load_model
from hpcft.train.tensorfile import tensor_file
from tests.parts import make_tiny_gpt2


@pytest.fixture
def model(tmp_path: Path) -> LossModel:
    return load_model(Model(path=str(make_tiny_gpt2(tmp_path / "model"))))


def trained(model: LossModel) -> torch.optim.AdamW:
    """An optimizer that has made one update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.arange(8)[None]
    model(tokens, places=torch.arange(7), labels=tokens[0, 1:]).backward()
    optimizer.step()
    return optimizer


def save(run: RunDir, model: LossModel, optimizer: torch.optim.Optimizer, step: int, keep: int = 5) -> Path:
    files = {
        "model": tensor_file(checkpoint.model_tensors(model)),
        "optimizer": tensor_file(checkpoint.optimizer_tensors(model, optimizer)),
    }
    return checkpoint.save(run, {"step": step}, files, keep)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path, model: LossModel) -> None:
    run, optimizer = RunDir(tmp_path), trained(model)
    save(run, model, optimizer, 1)
    other = load_model(Model(path=str(tmp_path / "model")))
    fresh = torch.optim.AdamW(other.parameters(), lr=1e-2)
    found, problems = checkpoint.newest_valid(run)
    assert found is not None and not problems
    checkpoint.load_into(found, other, fresh)
    for (name, ours), (_, theirs) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert other.model.lm_head.weight.data_ptr() == other.model.transformer.wte.weight.data_ptr()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert optimizer.state[ours].keys() == fresh.state[theirs].keys()
        assert all(torch.equal(optimizer.state[ours][key], fresh.state[theirs][key]) for key in optimizer.state[ours])


@pytest.mark.parametrize("harm", ["cut", "flip", "missing", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, model: LossModel, harm: str) -> None:
    run, optimizer = RunDir(tmp_path), trained(model)
    save(run, model, optimizer, 1)
    newest = save(run, model, optimizer, 2)
    file = newest / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    if harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "missing":
        file.unlink()
    else:
        (newest / "manifest.json").write_text('{"format": 2, "fil')
    found, problems = checkpoint.newest_valid(run)
    assert found is not None and found.step == 1
    assert len(problems) == 1 and problems[0].startswith("checkpoint of step 2: ")
    assert run.saved_steps() == [1], "nothing counts on the damaged one any more"
    save(run, model, optimizer, 2, keep=1)
    assert run.saved_steps() == [2]
    assert (run.checkpoints / "damaged-step-00000002").is_dir()
    save(run, model, optimizer, 3)
    (run.checkpoints / "step-00000003/state.json").unlink()
    assert checkpoint.newest_valid(run)[1]
    assert [path.name for path in run.checkpoints.glob("damaged-*")] == ["damaged-step-00000003"], "they do not pile up"


def test_a_kill_between_two_renames_loses_no_checkpoint(tmp_path: Path, model: LossModel) -> None:
    run = RunDir(tmp_path)
    folder = save(run, model, trained(model), 3)
    folder.rename(run.checkpoints / ".replaced-step-00000003")
    found, problems = checkpoint.newest_valid(run)
    assert found is not None and found.step == 3 and not problems


def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_rest(
    tmp_path: Path, model: LossModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, optimizer = RunDir(tmp_path), trained(model)
    save(run, model, optimizer, 1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        save(run, model, optimizer, 2)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]


def test_where_no_checkpoint_is_sound_nothing_begins_anew_in_silence(tmp_path: Path, model: LossModel) -> None:
    run = RunDir(tmp_path)
    (save(run, model, trained(model), 1) / "state.json").unlink()
    with pytest.raises(UserError) as error:
        checkpoint.newest_valid(run)
    assert "no checkpoint is sound: checkpoint of step 1: cannot be read" in str(error.value)
    assert str(error.value).endswith(f"Delete {run.checkpoints} to begin at step 0, then resume.")


def test_the_newest_stay_and_what_was_left_half_done_goes(tmp_path: Path, model: LossModel) -> None:
    run, optimizer = RunDir(tmp_path), trained(model)
    for step in (1, 2, 3):
        save(run, model, optimizer, step, keep=2)
    assert run.saved_steps() == [2, 3]
    (run.checkpoints / ".writing-step-00000004").mkdir()
    save(run, model, optimizer, 3, keep=2)  # the same step again, as after a damaged one
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_limit_in_bytes_has_room_for_the_checkpoint_that_comes_next(tmp_path: Path, model: LossModel) -> None:
    run, optimizer = RunDir(tmp_path), trained(model)
    size = sum(path.stat().st_size for path in save(run, model, optimizer, 1).iterdir())
    for step in (2, 3, 4):
        save(run, model, optimizer, step)
    checkpoint.prune(run, 5, limit=4 * size + 1000)
    assert run.saved_steps() == [2, 3, 4]
    checkpoint.prune(run, 2, limit=4 * size + 1000)
    assert run.saved_steps() == [3, 4]
    checkpoint.prune(run, 5, limit=size)
    assert run.saved_steps() == [4], "the newest stays whatever the limit"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, model: LossModel) -> None:
    run = RunDir(tmp_path)
    save(run, model, trained(model), 1)
    other = load_model(Model(path=str(make_tiny_gpt2(tmp_path / "deeper", layers=3))))
    found, _ = checkpoint.newest_valid(run)
    assert found is not None
    with pytest.raises(UserError, match="does not fit this model"):
        checkpoint.load_into(found, other, torch.optim.AdamW(other.parameters()))
