"""A chain of four jobs on a private Slurm, beside the same chain built from a Trainer and bare submitit.

`python -m tests.benchmarks.chain`: about ten minutes, most of it the walltimes themselves, so `make bench` leaves it
out. Both chains run at the same time, each on its own node and one core; every row has the same length and all of it is
learnt, so that a step is the same work in both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from hpcft.curves.reader import read_points
from hpcft.rundir import RunDir, find_runs
from tests.benchmarks.rows import Row, report
from tests.benchmarks.turns import in_turns
from tests.benchmarks.work import TEMPLATE, Shape, make_model, make_run, tokenizer_of, write_prompts
from tests.slurm.lab import Lab
from tests.slurm.runs import HPCFT

SHAPE = Shape(width=256, layers=6, heads=4)
WALLTIME = 2
"""Minutes."""
CALIBRATION = 8
"""Steps made in turns before, to know how many fill the jobs."""
FILLED = 3.5
"""Jobs' worth of steps, of which each needs some of its time to start."""
USABLE = 110.0
"""Seconds of a job of two minutes that either chain can train in, about."""
SAVE_SECONDS = 15
"""Between two checkpoints of the Trainer: what is lost at a walltime against what a save costs it (Young 1974)."""
QUEUED = 8
"""Jobs that the peer's chain has in the queue: each leaves at once when there is nothing left to do."""
PATIENCE = 1200.0
ROWS, BATCH, TOKENS = 64, 4, 100
Steps = list[tuple[int, float]]
"""Of one job: the steps that it made, and when each was done."""


@dataclass(frozen=True)
class Chain:
    """What a chain came to."""

    wall: float
    """Seconds from the submission until the last step was done."""
    allocated: float
    """Seconds that its jobs had a node."""
    jobs: int
    """Those that trained."""
    lost: int
    """Steps made more than once."""
    step: float
    """Seconds of a step, median."""
    steps: int

    @property
    def useful(self) -> float:
        """Share of the nodes' time that went into steps of the final run."""
        return self.steps * self.step / self.allocated


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as name:
        rows = chain_rows(Path(name))
    return report(rows, Path("build/bench-chain.json"))


def chain_rows(folder: Path) -> list[Row]:
    """Both chains, at once."""
    tokenizer = tokenizer_of(make_model(folder / "model", SHAPE))
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, ROWS, TOKENS, TOKENS, seed=1)
    second = calibrate(folder)
    steps = int(FILLED * USABLE / second)
    recipe = folder / "chain.yaml"
    recipe.write_text(yaml.safe_dump({"name": "chain", "task": "instruct", "cluster": "./lab.yaml", **work(steps)}))
    lab = Lab(folder / "lab", nodes=2, dies_with_parent=True)
    lab.folder.mkdir()
    lab.start()
    try:
        cluster = {"kind": "slurm", "runs": str(folder / "chains"), "partition": "GPU", "options": {"nodelist": "gpu1"}}
        (folder / "lab.yaml").write_text(yaml.safe_dump(cluster))
        environment = {**lab.environment, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        began = time.time()
        submit_peer(folder, recipe, max(1, round(SAVE_SECONDS / second)), environment)
        subprocess.run([HPCFT, "submit", recipe], env=environment, check=True, stdout=subprocess.DEVNULL)
        (run,) = find_runs(folder / "chains")
        deadline = time.monotonic() + PATIENCE
        peer = folder / "peer"
        while not (run.finished and (peer / "finished.json").exists() and not lab.run("squeue", "--noheader")):
            if time.monotonic() > deadline or run.halted:
                raise RuntimeError(f"the chains did not end: {run.halted}, {lab.run('squeue')}")
            time.sleep(1)
        ours, theirs = our_chain(lab, run, began), peer_chain(lab, peer, began)
        assert ours.steps == theirs.steps == steps
    finally:
        lab.stop()
    print(f"{steps} steps; ours {ours}; the peer's {theirs}")
    beside = "chain, beside Trainer under submitit"
    return [
        Row(f"{beside}: wall time", ours.wall, theirs.wall, "shorter", ours.wall < theirs.wall, "s"),
        Row(f"{beside}: jobs that trained", ours.jobs, theirs.jobs, "at least 4", min(ours.jobs, 4) == 4, "jobs"),
        Row(f"{beside}: steps lost", ours.lost, theirs.lost, "none of ours", ours.lost == 0, "steps"),
        Row(f"{beside}: useful share", ours.useful, theirs.useful, "higher", ours.useful > theirs.useful, ""),
    ]


def work(steps: int) -> dict[str, dict[str, Any]]:
    """The work of both, as sections of a recipe."""
    return {
        "model": {"path": "./model"},
        "data": {"train": "train.jsonl", "template": "prompt.md", "loss_on": "full", "max_length": 160, "workers": 0},
        "train": {"steps": steps, "batch_size": BATCH, "micro_batch_size": BATCH, "weight_decay": 0.0},
        "resources": {"gpus": 0, "walltime": f"0:0{WALLTIME}:00"},
    }


def calibrate(folder: Path) -> float:
    """Seconds of a step of the slower side, with no other beside it."""
    sections = work(CALIBRATION + 1)
    sections["data"]["validation"] = "train.jsonl"
    run = make_run(folder, "calibration", sections)
    answers = in_turns("trainers", ("hpcft", "trainer"), run.path, CALIBRATION)
    return max(statistics.median(turn["seconds"] for turn in turns[2:]) for turns in answers.values())


def submit_peer(folder: Path, recipe: Path, save_steps: int, environment: dict[str, str]) -> None:
    """Queue the peer's jobs: submitit has no chain of its own, so each waits for the one before."""
    command = [sys.executable, "-m", "tests.benchmarks.peer_job", str(folder / "peer"), str(recipe), str(save_steps)]
    subprocess.run([*command, str(QUEUED), str(WALLTIME)], env=environment, check=True)


def our_chain(lab: Lab, run: RunDir, began: float) -> Chain:
    """What our chain's records say."""
    assert run.finished
    logged = [read_points(job.curve).curves.get("train/loss") for job in run.jobs()]
    jobs = [list(zip(curve.steps.tolist(), curve.wall_times.tolist(), strict=True)) for curve in logged if curve]
    return chain_of(lab, jobs, [job.slurm_id for job in run.jobs() if job.slurm_id], run.finished["time"] - began)


def peer_chain(lab: Lab, peer: Path, began: float) -> Chain:
    """What the peer's jobs have written of each step."""
    jobs = []
    for path in sorted(peer.glob("steps-*.txt")):
        pairs = [line.split() for line in path.read_text().splitlines()]
        jobs.append([(int(step), float(when)) for step, when in pairs])
    finished = json.loads((peer / "finished.json").read_text())
    return chain_of(lab, jobs, json.loads((peer / "jobs.json").read_text()), finished["time"] - began)


def chain_of(lab: Lab, jobs: Sequence[Steps], slurm_ids: Sequence[str], wall: float) -> Chain:
    """The same sums for both, from when each step was done, and from Slurm's accounts."""
    elapsed = lab.run("sacct", "-X", "-n", "-P", "-o", "ElapsedRaw", "-j", ",".join(slurm_ids)).split()
    gaps = [later[1] - earlier[1] for job in jobs for earlier, later in pairwise(job)]
    made = [step for job in jobs for step, _ in job]
    kept = len(set(made))
    return Chain(wall, sum(map(int, elapsed)), len(jobs), len(made) - kept, statistics.median(gaps), kept)


if __name__ == "__main__":
    sys.exit(main())
