"""The promise where not all is trained: a run that is cut ends as one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from hpcft.errors import UserError
from hpcft.train.final import finish
from hpcft.train.saving import Saver
from tests.train.models import go_on
from tests.train.pieces import begin, digest, make_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(autouse=True)
def no_precision_of_another_test() -> Iterator[None]:
    """accelerate keeps it for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"freeze": 1}},
        {"model": {"weights": "random"}},
        {"lora": {"dropout": 0.1}},
        {"lora": {}, "train": {"precision": "bf16"}},
        {"lora": {}, "model": {"quantize": "nf4"}},
    ],
    ids=["freeze", "random", "lora", "lora-bf16", "qlora"],
)
def test_a_cut_leaves_no_trace(parts: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    if "quantize" in sections.get("model", {}):
        pytest.importorskip("bitsandbytes")
    whole = go_on(begin(make_run(parts, tmp_path / "whole", **{"train": {}, **sections})), 8)
    run = make_run(parts, tmp_path / "cut", **{"train": {}, **sections})
    first = go_on(begin(run), 3)
    Saver(first, None).last()
    second = begin(run, 2)
    assert second.position.step == 3 and digest(second) == digest(first)
    assert digest(go_on(second, 8)) == digest(whole) != digest(first)
    saved = load_file(run.checkpoints / "step-00000003" / "model.safetensors")
    trained = {name for name, parameter in whole.model.named_parameters() if parameter.requires_grad}
    assert set(saved) == trained, "a checkpoint holds what is trained, each once"


def test_a_checkpoint_is_refused_on_other_frozen_weights(parts: Path, tmp_path: Path) -> None:
    run = make_run(parts, tmp_path / "run", {}, lora={})
    training = go_on(begin(run), 2)
    Saver(training, None).last()
    finish(training)
    assert {path.name for path in run.final_model.glob("adapter*")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert (run.final_model / "tokenizer.json").exists() and not (run.final_model / "model.safetensors").exists()
    weights = parts / "model" / "model.safetensors"
    before = weights.read_bytes()
    tensors = load_file(weights)
    tensors["transformer.h.0.mlp.c_fc.weight"] += 0.001 * torch.randn(32, 128)
    save_file(tensors, weights, {"format": "pt"})
    try:
        with pytest.raises(UserError) as error:
            begin(run, 2)
    finally:
        weights.write_bytes(before)
    assert f"{run.path}: cannot go on exactly: frozen weights " in str(error.value)
    assert str(error.value).endswith("Put it back as it was, or submit a new run.")
    begin(run, 3)
