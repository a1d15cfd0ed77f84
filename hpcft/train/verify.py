"""One piece of a verification: `python -m hpcft.train.verify RUN NUMBER ATTEMPT SCRATCH`, a process as a job has it.

RUN is a directory of the verification's own. What is left of the piece is a checkpoint, and what each step came to.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.rundir import JobDir, RunDir
from hpcft.train.worker import leave, quiet, uncollected


def main(run_path: str, number: str, attempt: str, scratch: str) -> int:
    """0 when the piece is done and saved; 2 for a fault of the user's, which is said."""
    run = RunDir(Path(run_path))
    quiet()
    try:
        train_piece(run, run.job(int(number), int(attempt)), Path(scratch))
    except UserError as error:
        print(f"hpcft: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def train_piece(run: RunDir, job: JobDir, scratch: Path) -> None:
    """Train to the step that the job's piece.json names, from the one that it names too, and save."""
    with uncollected():
        from hpcft.train.loop import count_step, micro_batches
        from hpcft.train.saving import Saver
        from hpcft.train.setup import set_up
        from hpcft.train.step import one_step
    piece = read_json(job.path / "piece.json") or {}
    training = set_up(run, job, scratch)
    position, first = training.position, training.control.rank == 0
    if position.step != piece["first"]:
        what = f"its checkpoint of step {piece['first']} is not sound, or was pruned while it was read."
        raise UserError(Fault(str(piece["of"]), what, "Try again."))
    batches, saver, steps = micro_batches(training), Saver(training, None), []
    for step in range(position.step, min(piece["last"], training.total_steps)):
        result = one_step(training, batches, step)
        count_step(position, result)
        steps.append({"step": step + 1, "loss": (result.loss / result.targets).hex(), "norm": result.norm.hex()})
        if first:
            words = f"loss {result.loss / result.targets:.6f}, gradient {result.norm:.6g}"
            print(f"  step {step + 1} of {training.total_steps}: {words}", flush=True)
    saver.last()
    saver.close()
    if first:
        write_json(job.path / "done.json", {"steps": steps})


if __name__ == "__main__":
    leave(main)
