"""What needs torch, on this machine: a module of ours in a run's env, and which of the run's models it takes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import hpcft
from hpcft.errors import Fault
from hpcft.launch import chain
from hpcft.launch.condaenv import worker_variables
from hpcft.launch.hub import hub_variables
from hpcft.launch.slurm import scrubbed_environment
from hpcft.rundir import RunDir

CODE = (
    "import runpy, sys; sys.path.insert(0, {code!r}); import hpcft; del sys.path[0]; "
    "runpy.run_module({module!r}, run_name='__main__')"
)
"""Our hpcft, and all else from the env: the run's own copy may be older than the verb."""
THREADS = 8
"""At most, of a process on a login node, which is everybody's."""


@dataclass(frozen=True)
class Left:
    """A model that a run has left: the final one, when nothing else is said."""

    run: RunDir
    checkpoint: int | None = None
    """Step whose checkpoint is taken."""
    best: bool = False
    """Take the weights that had the lowest validation loss, which `train.keep_best` keeps."""

    @property
    def name(self) -> str:
        """As the process that loads it is told."""
        if self.checkpoint is not None:
            return str(self.checkpoint)
        return (self.run.best_model if self.best else self.run.final_model).name

    def faults(self, start: bool = False) -> Iterator[Fault]:
        """Why it cannot be had, as far as it can be known without torch; with `start`, 0 is the untrained model."""
        run, saved = self.run, self.run.saved_steps()
        steps = ", ".join(str(step) for step in saved)
        if self.checkpoint is not None and self.checkpoint not in (*saved, *([0] if start else [])):
            what = f"{run.name} has no checkpoint of step {self.checkpoint}."
            yield Fault("--checkpoint", what, f"It has {steps}." if steps else "It has none yet.")
        if self.best and self.checkpoint is not None:
            yield Fault("--best", "--checkpoint is given too.", "Leave out one of the two.")
        elif self.best and not run.best_model.is_dir():
            what = f"{run.name} has no best/."
            yield Fault("--best", what, "train.keep_best makes one at each better evaluation.")
        if self.checkpoint is None and not self.best and not run.finished:
            fix = f"Add --checkpoint with one of the steps {steps}." if steps else "It has no checkpoint yet either."
            yield Fault(run.name, "is not finished.", fix)


def env_faults(run: RunDir) -> Iterator[Fault]:
    """Why nothing can be started in a run's env."""
    python = chain.run_env(run).python
    if not os.access(python, os.X_OK):
        yield Fault(run.name, f"its env has no python any more: {python}.", "Make it again there.")


def call(run: RunDir, module: str, words: Sequence[str], *, terminal: bool = False) -> int:
    """The exit code of a module of ours in the env of a run; with `terminal` it may ask."""
    return call_python(chain.run_env(run).python, module, words, hub_variables(chain.run_cluster(run)), terminal)


def call_python(
    python: Path, module: str, words: Sequence[str], variables: Mapping[str, str], terminal: bool = False
) -> int:
    """The same with any python."""
    code = CODE.format(code=str(Path(hpcft.__file__).parent.parent), module=module)
    own = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with scrubbed_environment():
        threaded = worker_variables(int(os.environ.get("OMP_NUM_THREADS", threads)), internet=True)
        every = {**os.environ, **threaded, **variables, **own}
        stdin = None if terminal else subprocess.DEVNULL
        return subprocess.run([str(python), "-c", code, *words], stdin=stdin, env=every, check=False).returncode
