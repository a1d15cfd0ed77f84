"""Seconds to the first step of a job that goes on at row 1,000,000, beside one that begins, and beside the Trainer."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcft.data.features import FILES, Features
from hpcft.data.preparation import finish
from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.benchmarks.rows import Row
from tests.benchmarks.work import TEMPLATE, make_run, tokenizer_of, write_prompts
from tests.parts import make_tiny_gpt2

ROWS = 1_200_000
BATCH = 8
FAR = 1_000_000 // BATCH
"""Step at which row 1,000,000 comes."""
TIMES = 5


def resume_rows(folder: Path) -> Iterator[Row]:
    """A tiny model, so that what is left is the start itself; medians, measured in turns."""
    tokenizer = tokenizer_of(make_tiny_gpt2(folder / "model"))
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, BATCH, 8, 60, seed=1)  # is not read: the features are there
    near, far = (make_work(folder, name) for name in ("near", "far"))
    for run in (near, far):
        write_features(run.features / "train")
    write_dataset(Features(far.features / "train"), folder / "dataset")
    save_far(far)
    starts: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(TIMES):
        for side in ("hpcft", "trainer"):
            for run in (near, far):
                starts.setdefault((side, run.name), []).append(start(side, run))

    def took(side: str, run: RunDir, *phases: str) -> float:
        return statistics.median(sum(one[phase] for phase in phases) for one in starts[side, run.name])

    whole = ("imports", "start")
    ours, begun = took("hpcft", far, *whole), took("hpcft", near, *whole)
    yield Row("first step at row 1,000,000, beside at row 0", ours, begun, "1.1 times", ours <= 1.1 * begun, "s")
    ours, begun = took("hpcft", far, "start"), took("hpcft", near, "start")
    yield Row("the same without the imports", ours, begun, "1.1 times", ours <= 1.1 * begun, "s")
    ours, peer = took("hpcft", far, *whole), took("trainer", far, *whole)
    yield Row("first step at row 1,000,000, beside the Trainer", ours, peer, "sooner", ours < peer, "s")


def make_work(folder: Path, name: str) -> RunDir:
    """A run over more than a million rows."""
    values: dict[str, dict[str, Any]] = {
        "model": {"path": "./model"},
        "data": {"train": "train.jsonl", "template": "prompt.md", "loss_on": "full", "max_length": 64, "workers": 0},
        "train": {"steps": ROWS // BATCH, "batch_size": BATCH, "micro_batch_size": BATCH},
        "resources": {"gpus": 0},
    }
    return make_run(folder, name, values)


def write_features(folder: Path) -> None:
    """Rows of 8 to 60 random tokens, all of them learnt, as the first job of the run leaves them."""
    chance = np.random.default_rng(0)
    lengths = chance.integers(8, 61, ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    trained = np.ones(offsets[-1], dtype=np.bool_)
    trained[offsets[:-1]] = False
    tokens = chance.integers(1, 256, offsets[-1])
    arrays = {"tokens": tokens, "trained": trained, "offsets": offsets, "targets": lengths - 1}
    part = folder.with_name(".part")
    part.mkdir(parents=True)
    for name, array in arrays.items():
        array.astype(FILES[name]).tofile(part / name)
    finish(part, folder)


def write_dataset(features: Features, path: Path) -> None:
    """The same rows as a dataset of transformers'."""
    import pyarrow
    from datasets import Dataset

    offsets = pyarrow.array(features.offsets, pyarrow.int64())
    rows = pyarrow.LargeListArray.from_arrays(offsets, pyarrow.array(features.tokens))
    Dataset(pyarrow.table({"input_ids": rows})).save_to_disk(str(path))


def save_far(run: RunDir) -> None:
    """A checkpoint of hpcft's and one of the Trainer's at step FAR, each as it writes them."""
    for side in ("hpcft", "trainer"):
        command = [sys.executable, "-m", "tests.benchmarks.starters", side, str(run.path), str(FAR)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (made,) = (run.path / "peer").glob("checkpoint-*")
    state = json.loads((made / "trainer_state.json").read_text())
    # It was saved at step 1: that it is at FAR is all that the Trainer itself reads from there.
    write_json(made / "trainer_state.json", {**state, "global_step": FAR})
    made.rename(made.with_name(f"checkpoint-{FAR}"))


def start(side: str, run: RunDir) -> dict[str, float]:
    """Seconds of imports, and from there to the end of the first step."""
    command = [sys.executable, "-m", "tests.benchmarks.starters", side, str(run.path)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    seconds: dict[str, float] = json.loads(said.splitlines()[-1])
    return seconds
