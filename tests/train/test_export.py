"""A model taken out of a run: plain, whole or not there, and the same model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from hpcft.errors import UserError
from hpcft.train.checkpoint import model_tensors
from hpcft.train.export import export
from hpcft.train.final import finish, write_best
from hpcft.train.saving import Saver
from tests.parts import make_tiny_gpt2
from tests.train.models import go_on, logits, make_tiny_llama
from tests.train.pieces import begin, make_run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def load(folder: Path) -> Any:
    """As anybody loads it; tensors that do not fit fail the test."""
    model, said = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    return model


@pytest.mark.parametrize(
    ("family", "sections"),
    [
        ("gpt2", {"lora": {"targets": ["q_proj", "v_proj", "c_fc"]}}),
        ("gpt2", {"lora": {}, "model": {"quantize": "nf4"}}),
        ("gpt2", {"lora": {}, "model": {"quantize": "int8"}}),
        ("llama", {"lora": {}, "model": {"quantize": "nf4"}}),
        ("gpt2", {"model": {"freeze": 1}}),
    ],
    ids=["lora", "qlora", "int8", "llama", "freeze"],
)
def test_what_is_exported_is_the_model_that_was_trained(
    parts: Path, tmp_path: Path, family: str, sections: dict[str, Any]
) -> None:
    if "quantize" in sections.get("model", {}):
        pytest.importorskip("bitsandbytes")
    if family == "llama":
        folder = parts / "llama"
        sections["model"]["path"] = str(folder if folder.exists() else make_tiny_llama(folder))
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, **sections)
    training = go_on(begin(run), 8)
    finish(training)
    export(run, tmp_path / "out", "fp32", keep_adapter="lora" in sections)
    made = load(tmp_path / "out")
    close = 0.02 if "int8" in str(sections) else 1e-4  # LLM.int8 rounds what goes into a product, too
    assert torch.allclose(logits(made), logits(training.model), rtol=0, atol=close)
    base = AutoModelForCausalLM.from_pretrained(run.recipe.model.path)
    assert not torch.allclose(logits(base), logits(made), rtol=0, atol=5 * close), "nothing was learnt"
    assert isinstance(made, GPT2LMHeadModel) == (family == "gpt2")
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("node").input_ids
    adapter = {path.name for path in (tmp_path / "out" / "adapter").glob("*")}
    assert adapter == ({"adapter_config.json", "adapter_model.safetensors"} if "lora" in sections else set())
    assert not list(tmp_path.glob(".writing*")), "nothing half-written"


def test_a_checkpoint_can_be_exported_before_the_end_in_half_precision(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, lora={})
    training = go_on(begin(run), 3)
    Saver(training, None).last()
    before = logits(training.model)
    export(run, tmp_path / "out", "bf16", keep_adapter=False, which="3")
    made = load(tmp_path / "out")
    assert made.dtype == torch.bfloat16
    assert torch.allclose(logits(made.float()), before, rtol=0, atol=0.02)
    assert not (tmp_path / "out" / "adapter").exists() and not (tmp_path / "out" / "left").exists()
    (run.checkpoints / "step-00000003" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors has 0 bytes and should have"):
        export(run, tmp_path / "other", "fp32", keep_adapter=False, which="3")
    assert not list(tmp_path.glob(".writing*")) and not (tmp_path / "other").exists()


def test_the_best_weights_are_exported_as_the_last_ones_are(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {"learning_rate": 0.02}, lora={})
    training = go_on(begin(run), 2)
    write_best(training, model_tensors(training.model), loss=1.0, step=2)
    before = logits(training.model)
    go_on(training, 4)
    export(run, tmp_path / "out", "fp32", keep_adapter=True, which="best")
    assert torch.allclose(logits(load(tmp_path / "out")), before, rtol=0, atol=1e-4)
    assert not torch.allclose(logits(training.model), before, rtol=0, atol=1e-3)


def test_adapters_are_merged_into_no_other_weights_than_theirs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "parts", tmp_path / "run", {}, lora={})
    finish(go_on(begin(run), 1))
    shutil.rmtree(tmp_path / "parts" / "model")
    make_tiny_gpt2(tmp_path / "parts" / "model", seed=1)
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "out", "fp32", keep_adapter=False)
    what = f"{tmp_path / 'parts' / 'model'} holds other weights than those that run was trained upon."
    assert str(error.value) == f"run: {what} Put them back as they were."
    assert not (tmp_path / "out").exists()


def test_a_weight_that_half_precision_cannot_hold_is_refused(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {})
    training = go_on(begin(run), 1)
    with torch.no_grad():
        training.model.model.transformer.ln_f.weight[0] = 1e5
    finish(training)
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "out", "fp16", keep_adapter=False)
    what = "--dtype: a weight of this model is too large for float16. Use bf16 or fp32."
    assert str(error.value) == f"hpcft export: {what}"
    assert not (tmp_path / "out").exists()
