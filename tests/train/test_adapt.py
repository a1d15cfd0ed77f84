"""What is trained of a model: in part, from nothing, or beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hpcft.errors import UserError
from hpcft.recipe import Recipe
from hpcft.train.adapt import frozen_hash, load_adapted, trained_words
from hpcft.train.checkpoint import model_tensors
from hpcft.train.model import LossModel
from tests.parts import make_tiny_gpt2, train_tokenizer


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("gpt2") / "model", layers=3)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama of three layers, whose head is its own."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer().save_pretrained(folder)
    return folder


def recipe(folder: Path, **more: object) -> Recipe:
    """A recipe on this model; `model` adds to its section."""
    model = {"path": str(folder), **more.pop("model", {})}  # type: ignore[dict-item]
    data = {"train": "rows.jsonl"}
    return Recipe.model_validate({"name": "a", "task": "corpus", "model": model, "data": data, **more})


def load(folder: Path, **more: object) -> LossModel:
    made = recipe(folder, **more)
    return load_adapted(made, made.model)


def loss(model: LossModel) -> torch.Tensor:
    """Of two rows of 12 tokens."""
    tokens = torch.randint(0, 400, (2, 12), generator=torch.Generator().manual_seed(0))
    stacked = {"tokens": tokens, "mask": torch.ones_like(tokens), "trained": torch.ones_like(tokens, dtype=torch.bool)}
    summed: torch.Tensor = model(**model.inputs(stacked, torch.device("cpu")))
    return summed


def check_gradients(model: LossModel) -> set[str]:
    """Names of what has a gradient after a backward pass, which is all that is trained and nothing else."""
    loss(model).backward()
    graded = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert graded == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return graded


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
