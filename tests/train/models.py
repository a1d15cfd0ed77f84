"""Small models of two families for tests, loaded as a recipe has them trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpcft.recipe import Recipe
from hpcft.train.adapt import load_adapted
from hpcft.train.loop import micro_batches
from hpcft.train.model import LossModel
from hpcft.train.step import one_step
from hpcft.train.training import Training
from tests.parts import train_tokenizer


def make_tiny_llama(folder: Path) -> Path:
    """`folder`, with a Llama of three layers, whose head is its own."""
    tokenizer = train_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=500,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(folder: Path, **more: object) -> Recipe:
    """A recipe on this model; `model` adds to its section."""
    model = {"path": str(folder), **more.pop("model", {})}  # type: ignore[dict-item]
    values = {"name": "a", "task": "corpus", "model": model, "data": {"train": "rows.jsonl"}, **more}
    return Recipe.model_validate_json(json.dumps(values))


def load(folder: Path, **more: object) -> LossModel:
    """The model that a recipe with these sections trains."""
    made = recipe(folder, **more)
    return load_adapted(made, made.model)


def some_tokens() -> torch.Tensor:
    """(2, 12)"""
    return torch.randint(0, 400, (2, 12), generator=torch.Generator().manual_seed(0))


def loss(model: LossModel) -> torch.Tensor:
    """Of two rows of 12 tokens."""
    tokens = some_tokens()
    stacked = {"tokens": tokens, "mask": torch.ones_like(tokens), "trained": torch.ones_like(tokens, dtype=torch.bool)}
    summed: torch.Tensor = model(**model.inputs(stacked, torch.device("cpu")))
    return summed


def logits(model: object) -> torch.Tensor:
    """(2, 12, vocabulary), of a model of transformers, peft or ours."""
    inner = model.model if isinstance(model, LossModel) else model
    assert isinstance(inner, torch.nn.Module)
    inner.eval()
    with torch.no_grad():
        found: torch.Tensor = inner(input_ids=some_tokens(), use_cache=False).logits
    inner.train()
    return found


def stir(model: LossModel) -> None:
    """Change all that is trained, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def check_gradients(model: LossModel) -> set[str]:
    """Names of what has a gradient after a backward pass, which is all that is trained and nothing else."""
    loss(model).backward()
    graded = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert graded == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return graded


def go_on(training: Training, until: int) -> Training:
    """The same training, that many steps into the run."""
    batches = micro_batches(training)
    for step in range(training.position.step, until):
        one_step(training, batches, step)
        training.position.step = step + 1
    return training
