"""One job of a run, which may be told to stop behind a step: `python -m tests.benchmarks.gpu_cut RUN NUMBER STEP`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hpcft.rundir import RunDir
from hpcft.train import loop
from hpcft.train.setup import set_up


def main(run_path: str, number: str, stop_at: str) -> None:
    """Train to the end, or until the flag that a supervisor would raise stands there."""
    run = RunDir(Path(run_path))
    job = run.job(int(number))
    job.path.mkdir(parents=True, exist_ok=True)
    scratch = job.path / "scratch"
    scratch.mkdir()
    training = set_up(run, job, scratch)
    one_step = loop.one_step

    def step_and_flag(training: Any, batches: Any, step: int) -> Any:
        result = one_step(training, batches, step)
        if step + 1 == int(stop_at):
            (scratch / "stop").touch()
        return result

    loop.one_step = step_and_flag
    print(f"job {number}: {loop.train(training)} at step {training.position.step}")


if __name__ == "__main__":
    main(*sys.argv[1:])
