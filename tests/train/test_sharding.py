"""Sharding: the same training, and checkpoints that go on with another sharding on another number of processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.parts import write_rows
from tests.train.pieces import make_run
from tests.train.sharded import train_to

STEPS = 6


def train(run: RunDir, number: int, last: int, sharding: str, **more: object) -> None:
    """Job `number`, to this step: in this process, or sharded in two."""
    recipe = json.loads((run.path / "recipe.json").read_text())
    recipe["train"] |= {"sharding": sharding, **more}
    recipe["resources"] |= {"processes": 1 if sharding == "none" else 2}
    write_json(run.path / "recipe.json", recipe)
    if sharding == "none":
        train_to(RunDir(run.path), number, last)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.train.sharded", str(run.path), str(number), str(last)]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    jobs = [
        subprocess.Popen(command, env=os.environ | shared | rank, stderr=subprocess.PIPE, text=True) for rank in ranks
    ]
    for job in jobs:
        _, err = job.communicate(timeout=180)
        assert job.returncode == 0, err


def outcome(run: RunDir) -> dict[str, torch.Tensor]:
    """The tensors of the last checkpoint and of the final model, and the validation loss behind each step."""
    folder = run.checkpoints / f"step-{STEPS:08d}"
    files = [folder / "model.safetensors", folder / "optimizer.safetensors", run.final_model / "model.safetensors"]
    found = {f"{path.parent.name}/{name}": tensor for path in files for name, tensor in load_file(path).items()}
    jobs = [json.loads(path.read_text()) for path in sorted(run.path.glob("validation-*.json"))]
    tested = torch.tensor(jobs[-1][-1])
    return {**found, "validation": torch.tensor([loss for job in jobs for loss in job[:-1]]), "test": tested}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def held_out(parts: Path) -> dict[str, dict[str, object]]:
    """Sections of a recipe: the same rows for validation and test, which is of four and three of them."""
    rows = str(parts / "validation.jsonl")
    return {"data": {"validation": rows, "test": rows}, "evaluate": {"batch_size": 4}}


@pytest.fixture(scope="module")
def uncut(parts: Path) -> dict[str, torch.Tensor]:
    write_rows(parts / "validation.jsonl", 7, seed=2)  # in groups of three: one process has less to do
    run = make_run(parts, parts / "uncut", {"steps": STEPS}, **held_out(parts))
    train(run, 1, STEPS, "none")
    return outcome(run)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("zero2", "none"), ("none", "full")])
def test_a_chain_of_sharded_and_unsharded_jobs_learns_what_an_uncut_one_does(
    parts: Path, uncut: dict[str, torch.Tensor], first: str, then: str
) -> None:
    again = {"steps": STEPS, "gradient_checkpointing": then == "full"}
    run = make_run(parts, parts / f"{first}-{then}", again, **held_out(parts))
    train(run, 1, STEPS // 2, first)
    train(run, 2, STEPS, then)
    resumed = json.loads((run.job(2).path / "resumed.json").read_text())
    assert (resumed["step"], resumed["exactness"]) == (STEPS // 2, "sample-exact")
    found = outcome(run)
    assert found.keys() == uncut.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, uncut[name], rtol=0, atol=1e-6), name
