"""Whole runs on this machine that train a part of a model, on two processes, as a user starts and ends them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from tests.promise import hpcft, make_parts, make_recipe, run_whole

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


def test_adapters_of_two_processes_are_trained_and_exported(parts: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    sections = {"lora": {"dropout": 0.1}, "model": {"quantize": "nf4"}, "train": {"precision": "bf16"}}
    run = run_whole(recipe(parts, "lora", 8, **sections), tmp_path)
    assert {path.name for path in run.final_model.glob("*model*")} == {"adapter_model.safetensors"}
    out = tmp_path / "exported"
    done = hpcft("export", "lora", out, "--runs", tmp_path, "--dtype", "fp16")
    assert done.returncode == 0, done.stderr
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() > 10_000
    again = hpcft("export", "lora", out, "--runs", tmp_path)
    assert (again.returncode, again.stderr) == (2, f"hpcft: {out}: exists. Name a new folder, or remove it.\n")


def test_what_is_above_frozen_layers_trains_on_two_processes(parts: Path, tmp_path: Path) -> None:
    run = run_whole(recipe(parts, "frozen", 6, model={"freeze": 1}), tmp_path)
    before = dict(AutoModelForCausalLM.from_pretrained(parts / "model").named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(run.final_model).named_parameters())
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if name.startswith(("transformer.h.1.", "transformer.ln_f."))}
    assert "hpcft: trains 12768 of 49664 parameters\n" in run.job(1).log.read_text()
