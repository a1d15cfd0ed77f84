"""The optimizer whose moments have 8 bits: smaller, and exact over a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcft.recipe import Recipe
from hpcft.recipefile import read_recipe
from hpcft.rundir import RunDir
from hpcft.train import checkpoint
from hpcft.train.model import LossModel, load_model
from hpcft.train.optimizer import make_optimizer
from hpcft.train.tensorfile import tensor_file
from tests.parts import make_tiny_gpt2
from tests.promise import make_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    make_tiny_gpt2(tmp_path / "model", width=64)
    return read_recipe(make_recipe(tmp_path, "eight", 10), ["train.optimizer=adamw-8bit"]).recipe


def learn(model: LossModel, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        tokens = torch.randint(0, 400, (2, 16))
        places = torch.arange(15)
        model(tokens, places, tokens[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_moments_of_eight_bits_go_on_exactly_from_a_checkpoint(tmp_path: Path, recipe: Recipe) -> None:
    model, run = load_model(recipe.model), RunDir(tmp_path)
    optimizer = make_optimizer(recipe, model)
    learn(model, optimizer, range(3))
    tensors = {
        "model": checkpoint.model_tensors(model),
        "optimizer": checkpoint.optimizer_tensors(model, optimizer),
    }
    assert tensors["optimizer"]["state1/model.transformer.h.0.mlp.c_fc.weight"].dtype == torch.uint8
    assert tensors["optimizer"]["qmap2/model.transformer.h.0.mlp.c_fc.weight"].shape == (256,)
    checkpoint.save(run, {"step": 3}, {file: tensor_file(content) for file, content in tensors.items()}, keep=1)
    learn(model, optimizer, range(3, 6))

    other = load_model(recipe.model)
    fresh = make_optimizer(recipe, other)
    found, _ = checkpoint.newest_valid(run)
    assert found is not None
    checkpoint.load_into(found, other, fresh)
    learn(other, fresh, range(3, 6))
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
