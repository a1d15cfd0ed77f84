"""Whole runs on this machine that train a part of a model, on two processes, as a user starts and ends them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from hpcft.cli.looking import job_curves
from hpcft.curves.stitch import stitch
from hpcft.rundir import RunDir
from tests.promise import hpcft, make_parts, make_recipe, run_whole, running_job, trains, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    make_parts(folder)
    return folder


def recipe(folder: Path, name: str, steps: int, **sections: object) -> Path:
    """A recipe for two processes; DDP waits for ever for the gradient of what is trained and has none."""
    path = make_recipe(folder, name, steps, processes=2)
    values = yaml.safe_load(path.read_text())
    for key, section in sections.items():
        values[key] = {**values.get(key, {}), **section}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(values))
    return path


def outcome(run: RunDir, file: str) -> tuple[str, list[float]]:
    """Hash of what is left, and the curve."""
    digest = hashlib.sha256((run.final_model / file).read_bytes()).hexdigest()
    return digest, stitch(job_curves(run)).curve("train/loss").values.tolist()


def test_adapters_of_two_processes_are_cut_without_trace_and_exported(parts: Path, tmp_path: Path) -> None:
    path = recipe(parts, "lora", 150, lora={"dropout": 0.1})
    whole = run_whole(path, tmp_path / "whole")
    assert hpcft("submit", path, "--runs", tmp_path / "cut").returncode == 0
    run = RunDir(tmp_path / "cut" / "lora")
    wait_for(lambda: (job := running_job(run)) and trains(job))
    hpcft("stop", "lora", "--runs", tmp_path / "cut")
    wait_for(lambda: running_job(run) is None)
    assert not run.finished and hpcft("resume", "lora", "--runs", tmp_path / "cut", "--wait").returncode == 0
    assert outcome(run, "adapter_model.safetensors") == outcome(whole, "adapter_model.safetensors")
    out = tmp_path / "exported"
    done = hpcft("export", "lora", out, "--runs", tmp_path / "cut", "--dtype", "fp16")
    assert done.returncode == 0, done.stderr
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() > 10_000
    again = hpcft("export", "lora", out, "--runs", tmp_path / "cut")
    assert (again.returncode, again.stderr) == (2, f"hpcft: {out}: exists. Name a new folder, or remove it.\n")


def test_what_is_above_frozen_layers_trains_on_two_processes(parts: Path, tmp_path: Path) -> None:
    run = run_whole(recipe(parts, "frozen", 6, model={"freeze": 1}), tmp_path)
    before = dict(AutoModelForCausalLM.from_pretrained(parts / "model").named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(run.final_model).named_parameters())
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if name.startswith(("transformer.h.1.", "transformer.ln_f."))}
    assert "trains 13" in run.job(1).log.read_text()
