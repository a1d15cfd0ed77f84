"""Tokens per second, padding not counted, beside what else fine-tunes: transformers' Trainer, TRL and a bare loop."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcft.rundir import RunDir
from tests.benchmarks.rows import Row
from tests.benchmarks.turns import Facts, in_turns
from tests.benchmarks.work import QUARTER, TEMPLATE, Shape, make_model, make_run, tokenizer_of, write_prompts

STEPS = 8
ROWS = 2048
BATCH, MICRO = 16, 8
SHORTEST, LONGEST = 10, 250
"""Tokens of a prompt."""
HELD_OUT = 16
SMALL = Shape(width=64, layers=2, heads=2, vocabulary=4096)
EPOCH = 128
"""Steps."""


def token_rows(folder: Path, shape: Shape = QUARTER, steps: int = STEPS) -> Iterator[Row]:
    """Prompts of mixed length with a short completion; then the same rows with a loss on all of them."""
    tokenizer = tokenizer_of(make_model(folder / "model", shape))
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, ROWS, SHORTEST, LONGEST, seed=1)
    write_prompts(folder / "validation.jsonl", tokenizer, HELD_OUT, SHORTEST, LONGEST, seed=2)
    sides = ("hpcft", "bare", "trainer", "grouped", "trl")
    found = in_turns("trainers", sides, make_work(folder, "completion", steps).path, steps + 1)
    ours = tokens_per_second(found["hpcft"])
    for side, name, least in (
        ("trainer", "transformers' Trainer", 2.0),
        ("grouped", "the Trainer grouped by length", 1.4),
        ("trl", "TRL's SFTTrainer", 1.0),
        ("bare", "a bare loop given the same batches", 0.95),
    ):
        peer = tokens_per_second(found[side])
        yield Row(f"short completions, beside {name}", ours, peer, f"{least} times", ours >= least * peer, "tokens/s")
    found = in_turns("trainers", ("hpcft", "trainer"), make_work(folder, "full", steps).path, steps + 1)
    ours, peer = (tokens_per_second(found[side]) for side in ("hpcft", "trainer"))
    yield Row("loss on all, beside transformers' Trainer", ours, peer, "1.5 times", ours >= 1.5 * peer, "tokens/s")
    yield loss_row(folder / "epoch")


def loss_row(folder: Path) -> Row:
    """The loss on held-out rows after an epoch, of a model so small that one is made in a minute.

    It has to be an epoch: both see other rows in each step, and after a few the loss still says which.
    """
    tokenizer = tokenizer_of(make_model(folder / "model", SMALL))
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, EPOCH * BATCH, SHORTEST, LONGEST, seed=1)
    write_prompts(folder / "validation.jsonl", tokenizer, 4 * HELD_OUT, SHORTEST, LONGEST, seed=2)
    found = in_turns("trainers", ("hpcft", "trainer"), make_work(folder, "full", EPOCH - 1).path, EPOCH)
    ours, peer = (found[side][-1]["loss"] for side in ("hpcft", "trainer"))
    what = "loss on all, a small model's held-out loss after an epoch"
    return Row(what, ours, peer, "within 1%", abs(ours / peer - 1) <= 0.01, "nats")


def make_work(folder: Path, loss_on: str, steps: int) -> RunDir:
    """A run of the first steps over the rows; its recipe has one more, which is not made."""
    data = {"train": "train.jsonl", "validation": "validation.jsonl", "template": "prompt.md"}
    train = {
        "steps": steps + 1,
        "batch_size": BATCH,
        "micro_batch_size": MICRO,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
    }
    values: dict[str, dict[str, Any]] = {
        "model": {"path": "./model"},
        "data": {**data, "loss_on": loss_on, "max_length": LONGEST + 50, "workers": 0},
        "train": train,
        "resources": {"gpus": 0},
    }
    return make_run(folder, loss_on, values)


def tokens_per_second(turns: Sequence[Facts]) -> float:
    """The median of all steps but the first, which is slower everywhere: a burst of other work does not move it."""
    steps = [turn for turn in turns if "tokens" in turn][1:]
    return statistics.median(step["tokens"] / step["seconds"] for step in steps)
