"""`hpcft evaluate`: a model of a run on held-out rows, on this machine or in a small job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch import debug
from hpcft.launch.inenv import Left, call, env_faults
from hpcft.rundir import RunDir

SPLITS = ("test", "validation", "train")
JOB = "hpcft.job.evaluate"
MODULE = "hpcft.train.assess"


@dataclass(frozen=True)
class Evaluation:
    """Which model of a run answers which rows."""

    left: Left
    split: str = "test"

    @property
    def run(self) -> RunDir:
        return self.left.run

    @property
    def words(self) -> tuple[str, ...]:
        """As the process is told."""
        return (str(self.run.path), self.split, self.left.name)

    @property
    def report(self) -> Path:
        """Where it finds its place; answers and picture lie beside it."""
        name = f"step-{self.left.name}" if self.left.name.isdigit() else self.left.name
        return self.run.evaluation / f"{self.split}-{name}.json"


def read_left(run: RunDir, checkpoint: str | None) -> Left:
    """The model that `--checkpoint` means: a step, best, or without it the final one. Raises UserError."""
    if checkpoint in (None, "best"):
        return Left(run, best=checkpoint == "best")
    if not str(checkpoint).isdigit():
        what = f'"{checkpoint}" is neither a step nor `best`.'
        raise UserError(Fault("--checkpoint", what, "Leave it out for the final model."))
    return Left(run, int(str(checkpoint)))


def faults(evaluation: Evaluation) -> list[Fault]:
    """Everything that is in the way, as far as it can be known without torch."""
    found, data = [], evaluation.run.recipe.data
    if evaluation.split not in SPLITS:
        found.append(Fault("--split", f'"{evaluation.split}" is not known.', f"Use {', '.join(SPLITS)}."))
    elif not data.has(evaluation.split):
        there = ", ".join(split for split in SPLITS if data.has(split))
        what = f"the recipe of {evaluation.run.name} has no data.{evaluation.split}."
        found.append(Fault("--split", what, f"It has {there}."))
    return [*found, *evaluation.left.faults(start=True)]


def here(evaluation: Evaluation) -> int:
    """The exit code of the process that does it in the run's env, on this machine. Raises UserError."""
    if found := [*faults(evaluation), *env_faults(evaluation.run)]:
        raise UserError(found)
    return call(evaluation.run, MODULE, evaluation.words)


def on_cluster(evaluation: Evaluation, walltime: str | None) -> debug.Session:
    """The session that does it on one node, on as many GPUs as a job of the run has there. Raises UserError."""
    if found := faults(evaluation):
        raise UserError(found)
    return debug.of_run(evaluation.run, None, walltime, debug.Program(JOB, evaluation.words, "`evaluate`"))
