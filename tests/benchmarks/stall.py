"""For how long a checkpoint of 500 MB stops training, and how fast it is on disk."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.rows import Row
from tests.benchmarks.turns import Side
from tests.benchmarks.work import TEMPLATE, Shape, make_model, make_run, tokenizer_of, write_prompts

SHAPE = Shape(width=512, layers=10, heads=8, vocabulary=20_000)
"""42M parameters: weights and two moments of AdamW in fp32 are 500 MB."""
TIMES = 5
BATCH = 1


def stall_rows(folder: Path) -> Iterator[Row]:
    """Medians over saves made in turns, the first of each left out: it also makes room in memory and on disk."""
    tokenizer = tokenizer_of(make_model(folder / "model", SHAPE))
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, 16, 8, 16, seed=1)
    values: dict[str, dict[str, Any]] = {
        "model": {"path": "./model"},
        "data": {"train": "train.jsonl", "template": "prompt.md", "max_length": 64, "workers": 0},
        "train": {"steps": 1000, "batch_size": BATCH, "micro_batch_size": BATCH, "save_every": 1},
        "resources": {"gpus": 0},
    }
    run = make_run(folder, "stall", values)
    sides = [Side("savers", name, run.path) for name in ("hpcft", "accelerate", "trainer")]
    stalls: dict[str, list[float]] = {side.name: [] for side in sides}
    ours, plain = [], []
    try:
        for _ in range(TIMES):
            for side in sides:
                stalls[side.name].append(side.turn()["stall"])
            newest = run.checkpoints / f"step-{run.saved_steps()[-1]:08d}"
            size = sum(path.stat().st_size for path in newest.iterdir())
            ours.append(size / sides[0].turns[-1]["whole"] / 1e6)
            plain.append(size / dd(folder / "dd", size) / 1e6)
    finally:
        for side in sides:
            side.stop()
    stall = {name: statistics.median(seconds[1:]) for name, seconds in stalls.items()}
    for name, words in (("accelerate", "accelerator.save_state"), ("trainer", "transformers' Trainer")):
        holds = stall["hpcft"] < stall[name] / 10
        yield Row(f"stall of a 500 MB save, beside {words}", stall["hpcft"], stall[name], "under 0.1 times", holds, "s")
    speed, best = statistics.median(ours[1:]), statistics.median(plain[1:])
    yield Row("the same save on disk, beside dd with fsync", speed, best, "0.8 times", speed >= 0.8 * best, "MB/s")


def dd(path: Path, size: int) -> float:
    """Seconds in which dd writes so many bytes and knows them on disk."""
    os.sync()  # what others have written is not to be paid here
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size >> 20}", "conv=fsync"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds
