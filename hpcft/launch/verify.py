"""`hpcft verify`: which steps of a run are made again, and the session in which that is done."""

from __future__ import annotations

from hpcft.errors import Fault, UserError
from hpcft.launch import debug
from hpcft.rundir import RunDir

MODULE = "hpcft.job.verify"
STEPS = 6
"""Made twice, when not told how many."""
FEWEST = 2
"""One before the cut and one behind it."""


def of_run(run: RunDir, steps: int, step: int | None, walltime: str | None) -> debug.Session:
    """The session that verifies these steps, on one node. Raises UserError if there are none, or no place for it."""
    first, last = stretch(run, steps, step)
    words = (str(first), str(last), str(run.path))
    return debug.of_run(run, None, walltime, debug.Program(MODULE, words, "`verify`"))


def stretch(run: RunDir, steps: int, step: int | None) -> tuple[int, int]:
    """Steps done before the first that is made again, and at the last: from the newest checkpoint that has as many
    behind it, else from the newest that has any, else from the start."""
    saved, total = run.saved_steps(), run.total_steps()
    if total is None:
        raise UserError(Fault(run.name, "has not counted its rows yet.", "Verify it when its first job has begun."))
    if step is not None and step not in (0, *saved):
        there = ", ".join(map(str, saved)) or "none"
        what = f"{run.name} has no checkpoint of step {step}."
        raise UserError(Fault("--step", what, f"It has: {there}; 0 is its start."))
    wanted = [one for least in (steps, FEWEST) for one in reversed(saved) if total - one >= least]
    first = step if step is not None else (*wanted, 0)[0]
    if total - first < FEWEST:
        what = f"leaves {total - first} of {total} steps, and a cut needs {FEWEST}."
        raise UserError(Fault("--step" if step else run.name, what, "Name an earlier checkpoint with --step."))
    return first, min(first + steps, total)
