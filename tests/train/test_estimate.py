"""The estimate: against what a step really takes, and what it says of GPT-2 XL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config

from hpcft.recipe import Recipe
from hpcft.train.blueprint import autocast
from hpcft.train.estimate import GIB, estimate, parts
from hpcft.train.model import checkpoint_activations, load_model
from hpcft.train.optimizer import make_optimizer
from tests.parts import make_tiny_gpt2


def recipe_of(model: Path, length: int, gpus: int, **train: Any) -> Recipe:
    values = {
        "name": "memory",
        "task": "corpus",
        "model": {"path": str(model)},
        "data": {"train": "rows.jsonl", "max_length": length},
        "train": {"steps": 10, **train},
        "resources": {"gpus": gpus},
    }
    return Recipe.model_validate_json(json.dumps(values))


def measured(recipe: Recipe, rows: int) -> int:
    """Bytes at the peak of a real step, the second, as torch's allocator tells its profiler."""
    model = load_model(recipe.model)
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(model)
    optimizer = make_optimizer(recipe, model)
    places = torch.arange(rows * recipe.data.max_length - 1)

    def step() -> None:
        tokens = torch.randint(0, 400, (rows, recipe.data.max_length))
        with autocast("cpu", recipe.train.precision, recipe.train.gradient_checkpointing):
            loss = model(tokens, places, tokens.flatten()[1:].clone())
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad()

    step()
    held = [*model.parameters(), *model.buffers()]
    held += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    before = sum(tensor.untyped_storage().nbytes() for tensor in held)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    peak = now = before
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [
        {"micro_batch_size": 8},
        {"micro_batch_size": 8, "gradient_checkpointing": True},
        {"micro_batch_size": 2, "batch_size": 2, "precision": "bf16"},
    ],
    ids=["plain", "checkpointing", "bf16"],
)
def test_the_estimate_is_near_what_a_real_step_takes(tmp_path: Path, train: dict[str, Any]) -> None:
    model = make_tiny_gpt2(tmp_path / "model", width=128, layers=4, dropout=0.0)
    recipe = recipe_of(model, 128, gpus=0, **train)
    rows = train["micro_batch_size"]
    assert sum(parts(recipe, rows).values()) == pytest.approx(measured(recipe, rows), rel=0.05)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 XL, of which an estimate needs the config alone."""
    folder = tmp_path_factory.mktemp("xl")
    GPT2Config(n_layer=48, n_embd=1600, n_head=25).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_parts_of_gpt2_xl_are_what_arithmetic_says(xl: Path) -> None:
    recipe = recipe_of(xl, 1024, gpus=1, precision="fp16")
    found = {part: size / GIB for part, size in parts(recipe, 1).items()}
    parameters = 1_557_611_200 / GIB
    assert found["weights"] == found["gradients"] == pytest.approx(4 * parameters, rel=1e-3)
    assert found["moments"] == pytest.approx(8 * parameters)
    assert found["copies"] == pytest.approx(2 * parameters, rel=0.01)
    assert found["logits"] < 0.9
    # Of each token and layer: 40 bytes times the width, with dropout's masks.
    assert found["activations"] == pytest.approx(40 * 1600 * 1024 * 48 / GIB, rel=0.1)
    again = parts(recipe_of(xl, 1024, gpus=1, precision="fp16", gradient_checkpointing=True), 1)
    assert again["activations"] / GIB < 0.6
    small = parts(recipe_of(xl, 1024, gpus=1, precision="fp16", optimizer="adamw-8bit"), 1)
    assert small["moments"] / GIB == pytest.approx(2 * parameters, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cards", "memory", "expected"),
    [
        (1, 32, [["train.gradient_checkpointing=true"], ["train.micro_batch_size=2", "train.optimizer=adamw-8bit"]]),
        (2, 32, [["train.sharding=zero2"], ["train.gradient_checkpointing=true"]]),
        (
            1,
            16,
            [
                ["train.micro_batch_size=2", "train.sharding=zero2", "train.offload=true"],
                ["train.sharding=full", "train.offload=true"],
            ],
        ),
    ],
    ids=["1x32", "2x32", "1x16"],
)
def test_settings_that_fit_gpt2_xl_are_named_and_fit(
    xl: Path, cards: int, memory: int, expected: list[list[str]]
) -> None:
    recipe = recipe_of(xl, 1024, gpus=cards, precision="fp16", micro_batch_size=4)
    found = estimate(recipe, memory)
    assert not found["fits"]
    assert [setting["set"] for setting in found["settings"]] == expected
    assert all(setting["total"] < 0.92 * memory * GIB < found["total"] for setting in found["settings"])
    assert [setting["host"] // GIB for setting in found["settings"]] == ([23, 23] if memory == 16 else [0, 0])
