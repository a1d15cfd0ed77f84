"""One process of a group that trains case after case, whole and in pieces: `PARTS FOLDER CASES RANK RANKS PORT`.

Each piece of a run is a set-up of its own, with a new DDP around a new model, as in a new job.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

PIECES = (2, 5)
"""Steps after which the cut runs are stopped."""
STEPS = 7
CLASS_TASKS = ("classify", "prefer")
"""Kinds of training that are tasks of their own, on an encoder with a head of classes."""


def settings(parts: Path, case: dict[str, Any], ranks: int) -> dict[str, Any]:
    """Sections of the recipe."""
    sections: dict[str, Any] = {"resources": {"gpus": 0, "processes": ranks}}
    if case["kind"] == "lora":
        sections["lora"] = {"rank": 4, "dropout": 0.1}
    if case["kind"] == "bottom":
        sections["model"] = {"freeze": 1}
    if case["kind"] in CLASS_TASKS:
        sections["task"], sections["model"] = case["kind"], {"path": str(parts / "encoder")}
        held_out = dict.fromkeys(("validation", "test"), str(parts / f"{case['kind']}-held-out.jsonl"))
        sections["data"] = {"train": str(parts / f"{case['kind']}.jsonl"), "template": None, **held_out}
        sections["evaluate"] = {"every": 3, "batch_size": 4}
    sections["train"] = {
        "steps": STEPS,
        "grouping": case["grouping"],
        "gradient_checkpointing": case["checkpointing"],
    }
    if sharding := case.get("sharding"):
        sections["train"]["sharding"] = sharding
    if tokens := case.get("tokens"):
        sections["train"] |= {"batch_size": None, "batch_tokens": tokens}
    else:
        sections["train"]["batch_size"] = 2 * ranks * case["accumulation"]
    if case.get("phases"):
        sections["phases"] = [
            {"name": "full", "data": {"loss_on": "full"}, "train": {"steps": PIECES[1]}},
            {"name": "completion", "train": {"steps": STEPS - PIECES[1], "batch_size": 4 * ranks}},
        ]
    return sections


def run_in_pieces(parts: Path, path: Path, case: dict[str, Any], rank: int, ranks: int, stops: tuple[int, ...]) -> Any:
    """What a run that is stopped after these steps comes to, as rank 0 has it: weights, curve, and accuracy in
    validation, at the first and last step as it is counted from the probabilities too."""
    from hpcft.disk import write_json
    from hpcft.rundir import RunDir
    from tests.promise import outcome
    from tests.train.pieces import make_run, train_job

    run = make_run(parts, path, **settings(parts, case, ranks)) if rank == 0 else RunDir(path)
    meet()
    for number, stop in enumerate([*stops, STEPS + 1], 1):
        if rank == 0:  # a job that was never submitted has no part in the curve
            run.job(number).path.mkdir(parents=True, exist_ok=True)
            write_json(run.job(number).path / "submitted.json", {"slurm_id": str(number), "walltime": 3600})
        ended = train_job(run, number, stop)
        assert ended == ("finished" if stop > STEPS else "stopped"), ended
        assert stop > STEPS or run.saved_steps()[-1] == stop
        meet()
    if rank > 0:
        return None
    found = outcome(run)
    counted = [count(run.evaluation / f"{when}.parquet") for when in ("before", "after")] if found.accuracy else []
    return [found.weights, found.curve, found.accuracy, counted]


def count(answers: Path) -> float:
    """The share of held-out rows whose own class has the largest of the probabilities."""
    import pandas

    table = pandas.read_parquet(answers)
    likeliest = table.filter(like="p(").idxmax(axis=1)
    return float((likeliest == "p(" + table["truth"] + ")").mean())


def meet() -> None:
    """Wait for all processes."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def main(parts: str, folder: str, cases: str, rank: str, ranks: str, port: str) -> None:
    """Write the outcome of every case to FOLDER/outcomes.json."""
    os.environ.update(
        RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    if ranks == "1":
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    else:
        from accelerate import PartialState

        PartialState(cpu=True)  # so that the first meeting has a group
    outcomes = {}
    for name, case in json.loads(Path(cases).read_text()).items():
        place = Path(folder) / name
        whole = run_in_pieces(Path(parts), place / "whole", case, int(rank), int(ranks), ())
        cut = run_in_pieces(Path(parts), place / "cut", case, int(rank), int(ranks), PIECES)
        outcomes[name] = {"whole": whole, "cut": cut}
    if rank == "0":
        (Path(folder) / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
