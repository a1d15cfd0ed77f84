"""What is trained of a model: in part, from nothing, or beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from hpcft.errors import UserError
from hpcft.train.adapt import frozen_hash, trained_words
from hpcft.train.checkpoint import model_tensors
from tests.parts import make_tiny_gpt2
from tests.train.models import check_gradients, load, make_tiny_llama


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("gpt2") / "model", layers=3)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama") / "model")


def test_freezing_the_lowest_layers_trains_all_that_is_above_them(gpt2: Path, llama: Path) -> None:
    parts = {
        name.removeprefix("model.").rpartition(".")[0] for name in check_gradients(load(gpt2, model={"freeze": 2}))
    }
    assert {".".join(part.split(".")[:3]) for part in parts} == {
        "transformer.h.2", "transformer.ln_f",
    }  # fmt: skip
    graded = check_gradients(load(llama, model={"freeze": 3}))
    assert graded == {"model.model.norm.weight", "model.lm_head.weight"}


def test_freezing_the_body_trains_the_head_alone(llama: Path) -> None:
    model = load(llama, model={"freeze": "body"})
    assert check_gradients(model) == {"model.lm_head.weight"}
    assert trained_words(model) == f"trains 16000 of {sum(p.numel() for p in model.parameters())} parameters"
    assert set(model_tensors(model)) == {"model.lm_head.weight"}, "a checkpoint holds nothing else"


def test_what_cannot_be_frozen_is_refused(gpt2: Path) -> None:
    with pytest.raises(UserError) as error:
        load(gpt2, model={"freeze": 4})
    assert str(error.value) == "recipe: model.freeze = 4: the model has 3 layers. Write 3 at most."
    with pytest.raises(UserError) as error:
        load(gpt2, model={"freeze": "body"})
    what = 'model.freeze = "body": the head of this model is its input embedding, so nothing is left to train.'
    assert str(error.value) == f"recipe: {what} Freeze a number of layers, or use lora."


def test_random_weights_are_the_seeds_alone(gpt2: Path) -> None:
    one = load(gpt2, model={"weights": "random"})
    torch.rand(100)
    two, other = load(gpt2, model={"weights": "random"}), load(gpt2, model={"weights": "random"}, train={"seed": 1})
    pretrained = GPT2LMHeadModel.from_pretrained(gpt2)
    first = [model.model.transformer.wte.weight for model in (one, two, other)] + [pretrained.transformer.wte.weight]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2]) and not torch.equal(first[0], first[3])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.parameters(), two.parameters(), strict=True))


def test_the_hash_of_frozen_weights_knows_others_and_only_them(gpt2: Path) -> None:
    model = load(gpt2, model={"freeze": 1})
    first = frozen_hash(model)
    with torch.no_grad():
        model.model.transformer.h[2].mlp.c_fc.weight.add_(1)  # is trained
    assert frozen_hash(model) == first and first is not None
    with torch.no_grad():
        model.model.transformer.h[0].mlp.c_fc.weight.mul_(1.0001)
    assert frozen_hash(model) != first
    assert frozen_hash(load(gpt2)) is None
