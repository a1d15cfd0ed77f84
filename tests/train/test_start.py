"""The start of a job: what it reads ahead, and what it never imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcft.disk import read_json, write_json
from hpcft.recipefile import read_recipe
from hpcft.rundir import RunDir
from hpcft.sections import Model
from hpcft.train import prefetch
from hpcft.train.model import load_model
from tests.parts import make_tiny_gpt2
from tests.promise import ENVIRONMENT, make_parts, make_recipe

UNUSED = ("pandas", "pyarrow", "datasets", "sklearn", "matplotlib", "peft", "bitsandbytes", "torchvision")
"""Packages that a plain run has no use for; transformers and accelerate would import some where they are there."""
WORKER = """
import os, sys
from hpcft.train.worker import main
code = main(*sys.argv[1:])
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))
sys.stdout.flush()
os._exit(code)
"""


def make_run(folder: Path) -> RunDir:
    """A run of one step, as a submission leaves it."""
    make_parts(folder, rows=4)
    file = read_recipe(make_recipe(folder, "tiny", 1), ("train.batch_size=2", "train.warmup_steps=0"))
    run = RunDir(folder / "runs" / "tiny")
    run.job(1).path.mkdir(parents=True)
    write_json(run.path / "recipe.json", file.recipe.model_dump(mode="json"))
    return run


@pytest.mark.slow
def test_a_plain_run_imports_no_package_that_it_does_not_use_and_says_the_seconds_of_its_start(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    command = [sys.executable, "-c", WORKER, str(run.path), "1", "1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    assert "transformers" in line.split() and not set(line.split()) & set(UNUSED)
    start = (read_json(tmp_path / "progress.json") or {})["start"]
    phases = ["imports", "processes", "data", "model", "warm-up", "checkpoint", "disk", "first step"]
    assert sorted(start) == sorted(phases) and all(seconds >= 0 for seconds in start.values())


def test_the_model_and_the_newest_checkpoint_are_read_ahead_in_that_order(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for step in (3, 6):
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for name in ("manifest.json", "model.safetensors", "optimizer.safetensors"):
            (folder / name).write_bytes(b"{}")
    names = [str(path.relative_to(tmp_path)) for path in prefetch.files_ahead(run)]
    newest = "runs/tiny/checkpoints/step-00000006"
    assert names == ["model/model.safetensors", f"{newest}/model.safetensors", f"{newest}/optimizer.safetensors"]


def test_what_has_no_room_is_not_read_ahead_and_neither_does_a_second_process_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = make_run(tmp_path), []
    monkeypatch.setattr(prefetch, "_read", lambda files: read.extend(files))
    monkeypatch.setattr(prefetch, "_free_memory", lambda: 1)
    assert prefetch.read_ahead(run) is None
    monkeypatch.undo()
    monkeypatch.setattr(prefetch, "_read", lambda files: read.extend(files))
    thread = prefetch.read_ahead(run)
    assert thread is not None
    thread.join(10)
    assert [path.name for path in read] == ["model.safetensors"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prefetch.read_ahead(run) is None


def test_a_model_that_is_loaded_straight_to_a_device_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    source = Model(path=str(make_tiny_gpt2(tmp_path / "model")))
    plain, straight = load_model(source), load_model(source, torch.device("cpu"))
    assert straight.projects_exactly and plain.state_dict().keys() == straight.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, straight.state_dict()[name]), name
    assert {weight.dtype for weight in straight.parameters()} == {torch.float32}
