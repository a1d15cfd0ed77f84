"""The promise, for every way to train: a run in three pieces has the weights and curve of one that was never cut."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcft.job.workers import find_meeting
from tests.parts import make_tiny_encoder, write_labelled
from tests.train.exact import CLASS_TASKS, STEPS
from tests.train.pieces import make_parts

CASES = {
    f"{grouping}-{kind}-accumulation{accumulation}{'-checkpointing' if checkpointing else ''}": {
        "grouping": grouping,
        "kind": kind,
        "accumulation": accumulation,
        "checkpointing": checkpointing,
    }
    for grouping, kind, accumulation, checkpointing in itertools.product(
        ("plain", "bucketed", "packed"), ("full", "lora", "bottom"), (1, 4), (False, True)
    )
}
"""All that may be combined, for each number of processes."""
CASES |= {
    # Cut within the first of two phases, and where it ends.
    f"{grouping}-{kind}-phases": {
        "grouping": grouping,
        "kind": kind,
        "accumulation": 1,
        "phases": True,
        "checkpointing": False,
    }
    for grouping, kind in (("bucketed", "full"), ("packed", "lora"), ("plain", "bottom"))
}
CASES |= {
    f"bucketed-{kind}": {"grouping": "bucketed", "kind": kind, "accumulation": 2, "checkpointing": kind == "prefer"}
    for kind in CLASS_TASKS
}
CASES |= {
    # About three rows a step: where there are four processes, some have none of them.
    f"{grouping}-tokens": {"grouping": grouping, "kind": "full", "tokens": 200, "checkpointing": False}
    for grouping in ("plain", "bucketed", "packed")
}
SEVERAL = (
    "plain-full-accumulation4-checkpointing",
    "plain-bottom-accumulation1",
    "bucketed-lora-accumulation4",
    "bucketed-full-accumulation1-checkpointing",
    "packed-bottom-accumulation4-checkpointing",
    "packed-lora-accumulation1",
    "bucketed-tokens",
    "bucketed-classify",
    "bucketed-prefer",
    "bucketed-full-phases",
    "packed-lora-phases",
)
"""Those that several processes try in `make test`: every grouping and every kind, with and without each of the others.
`make exact` tries all of them, on one, two and four processes."""


SHARDED = {"bucketed-shards-phases": {**CASES["bucketed-full-phases"], "sharding": "full"}}
"""What two processes try besides."""


def cases(ranks: int) -> dict[str, dict[str, Any]]:
    """What a group of so many processes is to try."""
    every = ranks == 1 or "HPCFT_EXACT" in os.environ
    return {**(CASES if every else {name: CASES[name] for name in SEVERAL}), **(SHARDED if ranks == 2 else {})}


def outcomes(parts: Path, folder: Path, ranks: int) -> dict[str, Any]:
    """What every case comes to in a group of so many processes."""
    make_parts(parts)
    make_tiny_encoder(parts / "encoder")
    for task in CLASS_TASKS:
        write_labelled(parts / f"{task}.jsonl", 60, task)
        write_labelled(parts / f"{task}-held-out.jsonl", 21, task, seed=1)  # in groups of four: some have less to do
    (folder / "cases.json").write_text(json.dumps(cases(ranks)))
    port = str(find_meeting(1).port)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, "-m", "tests.train.exact", str(parts), str(folder), str(folder / "cases.json")]
    with (folder / "log").open("wb") as log:
        group = [
            subprocess.Popen([*words, str(rank), str(ranks), port], stdout=log, stderr=log, env=environment)
            for rank in range(ranks)
        ]
        codes = [process.wait(timeout=1700) for process in group]
    assert codes == [0] * ranks, (folder / "log").read_text()[-3000:]
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_way_to_train_comes_out_the_same_in_three_pieces(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, ranks: int
) -> None:
    found = outcomes(tmp_path_factory.getbasetemp() / "exact-parts", tmp_path, ranks)
    assert found.keys() == cases(ranks).keys()
    differ = [name for name, both in found.items() if both["whole"] != both["cut"]]
    assert not differ
    assert all(len(both["whole"][1]) == STEPS for both in found.values())
    for kind in CLASS_TASKS:
        _, _, accuracy, counted = found[f"bucketed-{kind}"]["whole"]
        assert [step for step, _ in accuracy] == [0, 3, 6, STEPS]
        assert [accuracy[0][1], accuracy[-1][1]] == pytest.approx(counted, rel=1e-6)  # TensorBoard's are in fp32
    weights = [both["whole"][0] for both in found.values()]
    assert len(set(weights)) >= len(weights) // 3, "the cases do not differ among themselves: this compares nothing"
