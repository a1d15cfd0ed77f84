"""The first steps in one process, in a terminal: `python -m hpcft.train.debug FOLDER STEPS [RUN]`, from `hpcft debug`.

FOLDER is a run directory that is thrown away afterwards. With RUN, its features and its newest checkpoint are used.
"""

from __future__ import annotations

import bdb
import pdb
import sys
import time
import traceback
from pathlib import Path

from hpcft.borrow import borrow
from hpcft.errors import Fault, UserError
from hpcft.rundir import RunDir
from hpcft.train.worker import quiet

INTERRUPTED = 130
HINT = "hpcft: this is the debugger: `w` shows where, `u` and `d` go up and down, `p NAME` prints, `q` leaves."


def main(folder: str, steps: str, run: str = "") -> int:
    """0 after these steps. What fails, or Ctrl-C, opens the debugger where it happened, and the code is not 0."""
    quiet()
    try:
        first_steps(RunDir(Path(folder)), int(steps), RunDir(Path(run)) if run else None)
    except bdb.BdbQuit:  # `q` at a breakpoint
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, UserError):
            print(f"hpcft: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        print(HINT, flush=True)
        pdb.post_mortem(error.__traceback__)
        if isinstance(error, UserError):
            return error.exit_code
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def first_steps(own: RunDir, steps: int, run: RunDir | None) -> None:
    """Train so many steps from the newest checkpoint of `run`, else from the first; nothing is saved."""
    # Here and not at the top: what fails in these imports opens the debugger too.
    from hpcft.train.loop import micro_batches
    from hpcft.train.setup import set_up
    from hpcft.train.step import one_step

    borrowed = borrow(run, own) if run else []  # now, since a run at work prunes its checkpoints
    training = set_up(own, own.job(1), own.path)
    first, total = training.position.step, training.total_steps
    if borrowed and first not in borrowed:
        raise UserError(Fault(str(run and run.path), "its checkpoints were pruned while they were read.", "Try again."))
    batches = micro_batches(training)
    for step in range(first, min(first + steps, training.span.ends)):
        started = time.monotonic()
        result = one_step(training, batches, step)
        seconds = time.monotonic() - started
        words = f"loss {result.loss / result.targets:.4f}, gradient {result.norm:.3g}, {seconds:.2f} s"
        print(f"step {step + 1} of {total}: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
