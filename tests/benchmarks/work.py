"""The work that trainers are compared on: a model, rows and a recipe, the same for every side."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcft.recipe import read_recipe
from hpcft.rundir import RunDir, write_json
from tests.parts import sentences

DEMO = Path("build/demo/model")
"""Its tokenizer is used: 49,152 tokens. `make parts` brings it."""
TEMPLATE = "{{prompt}}\nAnswer:{{answer}}"
ANSWERS = (" positive", " negative", " neutral")


@dataclass(frozen=True)
class Shape:
    """A GPT-2 of this size."""

    width: int
    layers: int
    heads: int
    positions: int = 256


HALF = Shape(width=384, layers=24, heads=6)
"""Half as wide as GPT-2 and twice as deep: 61M parameters, and the vocabulary projection has GPT-2's share, 31%, of the
matrix products. In a larger model it has less (GPT-2 XL: 5%)."""


def make_model(folder: Path, shape: Shape) -> Path:
    """The folder, with a random GPT-2 in it and the demo's tokenizer, padding set to its end of text."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
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
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path, rows: int, shortest: int, longest: int, seed: int) -> Path:
    """`path`: rows whose prompts have from `shortest` to `longest` tokens, each length as likely as any other.

    Answers have one or two tokens.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    chance = random.Random(seed)
    some = sentences(chance)
    lines = []
    for _ in range(rows):
        words = " ".join(next(some) for _ in range(longest // 6))
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
