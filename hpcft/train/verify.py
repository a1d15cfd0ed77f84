"""One piece of a verification: `python -m hpcft.train.verify RUN NUMBER ATTEMPT SCRATCH`, a process as a job has it.

RUN is a directory of the verification's own. What is left of the piece is a checkpoint, and what each step came to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.rundir import JobDir, RunDir
from hpcft.train.progress import first_progress
from hpcft.train.worker import leave, quiet, uncollected

if TYPE_CHECKING:
    from hpcft.train.training import Training


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
        from accelerate.utils import release_memory

        from hpcft.train.loop import end_phase
        from hpcft.train.setup import set_up
    piece = read_json(job.path / "piece.json") or {}
    steps: list[dict[str, Any]] = []
    progress = first_progress(scratch)
    training = set_up(run, job, scratch, progress)
    first = training.control.rank == 0
    if training.position.step != piece["first"]:
        what = f"its checkpoint of step {piece['first']} is not sound, or was pruned while it was read."
        raise UserError(Fault(str(piece["of"]), what, "Try again."))
    while True:
        steps += train_steps(training, piece["last"])
        if training.span.last or training.span.ends > piece["last"]:
            break
        end_phase(training)
        over = training.span.ends == piece["last"]
        del training
        release_memory()
        if over:
            break
        training = set_up(run, job, scratch, progress)
    if first:
        write_json(job.path / "done.json", {"steps": steps})


def train_steps(training: Training, last: int) -> list[dict[str, Any]]:
    """{step, loss, norm} of every step of this phase up to this one, the numbers to the last bit; saved at its end."""
    from hpcft.train.loop import count_step, micro_batches
    from hpcft.train.saving import Saver
    from hpcft.train.step import one_step

    position = training.position
    batches, saver, steps = micro_batches(training), Saver(training, None), []
    for step in range(position.step, min(last, training.span.ends)):
        result = one_step(training, batches, step)
        count_step(position, result)
        steps.append({"step": step + 1, "loss": (result.loss / result.targets).hex(), "norm": result.norm.hex()})
        if training.control.rank == 0:
            words = f"loss {result.loss / result.targets:.6f}, gradient {result.norm:.6g}"
            print(f"  step {step + 1} of {training.total_steps}: {words}", flush=True)
    saver.last()
    saver.close()
    return steps


if __name__ == "__main__":
    leave(main)
