"""The work that trainers are compared on: a model, rows and a recipe, the same for every side."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcft.disk import write_json
from hpcft.recipefile import read_recipe
from hpcft.rundir import RunDir
from tests.parts import sentences, train_tokenizer

TEMPLATE = "{{prompt}}\nAnswer:{{answer}}"
ANSWERS = (" positive", " negative", " neutral")


@dataclass(frozen=True)
class Shape:
    """A GPT-2 of this size."""

    width: int
    layers: int
    heads: int
    vocabulary: int = 12_288
    positions: int = 320


QUARTER = Shape(width=192, layers=12, heads=3)
"""GPT-2 with a quarter of its width and vocabulary, 8M parameters: the vocabulary projection has the same share of the
matrix products, 31%. In a larger model it has less (GPT-2 XL: 5%)."""


def make_model(folder: Path, shape: Shape) -> Path:
    """The folder, with a random GPT-2 in it, and a tokenizer that pads and uses some of its vocabulary."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tokenizer_of(folder)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.positions,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer in the folder of a model, made if there is none."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        tokenizer = train_tokenizer()
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def write_prompts(path: Path, tokenizer: Any, rows: int, shortest: int, longest: int, seed: int) -> Path:
    """`path`: rows whose prompts have from `shortest` to `longest` tokens, each length as likely as any other."""
    chance = random.Random(seed)
    some = sentences(chance)
    lines = []
    for _ in range(rows):
        words = " ".join(next(some) for _ in range(longest // 8 + 1))
        tokens = tokenizer(words)["input_ids"][: chance.randint(shortest, longest)]
        lines.append(json.dumps({"prompt": tokenizer.decode(tokens), "answer": chance.choice(ANSWERS)}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def make_run(folder: Path, name: str, values: Mapping[str, Mapping[str, Any]]) -> RunDir:
    """A run of a recipe as a submission leaves it, without a queue: its folder, its recipe, its first job's place."""
    recipe: dict[str, Any] = {"name": name, "task": "instruct", "cluster": "local", **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    run = RunDir(folder / "runs" / name)
    run.job(1).path.mkdir(parents=True)
    write_json(run.path / "recipe.json", read_recipe(path).recipe.model_dump(mode="json"))
    return run
