"""`hpcft export`: what can be known without torch, and the process in the run's env that does the rest."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch import chain
from hpcft.launch.hub import hub_variables
from hpcft.launch.slurm import scrubbed_environment
from hpcft.rundir import RunDir

DTYPES = ("fp32", "fp16", "bf16")
CODE = (
    "import runpy, sys; sys.path.insert(0, {code!r}); import hpcft; del sys.path[0]; "
    "runpy.run_module('hpcft.train.export', run_name='__main__')"
)
"""Our hpcft, and all else from the env: the run's own copy may be older than this verb."""


@dataclass(frozen=True)
class Export:
    """Which model of a run goes where, in which precision."""

    run: RunDir
    out: Path
    dtype: str = "fp32"
    keep_adapter: bool = False
    checkpoint: int | None = None
    """Step whose checkpoint is taken, in place of the final model."""
    best: bool = False
    """Take the weights that had the lowest validation loss, which `train.keep_best` keeps."""

    @property
    def which(self) -> str:
        """As the process that writes is told."""
        if self.checkpoint is not None:
            return str(self.checkpoint)
        return (self.run.best_model if self.best else self.run.final_model).name


def faults(export: Export) -> list[Fault]:
    """Everything that is in the way, as far as it can be known without torch."""
    run, out, found = export.run, export.out, []
    if export.dtype not in DTYPES:
        found.append(Fault("--dtype", f'"{export.dtype}" is not known.', f"Use {', '.join(DTYPES)}."))
    if os.path.lexists(out):
        found.append(Fault(str(out), "exists.", "Name a new folder, or remove it."))
    elif not os.access(out.parent, os.W_OK | os.X_OK):
        found.append(Fault(str(out), f"nothing can be made in {out.parent}.", "Name another folder."))
    steps = ", ".join(str(step) for step in run.saved_steps())
    if export.checkpoint is not None and export.checkpoint not in run.saved_steps():
        what = f"{run.name} has no checkpoint of step {export.checkpoint}."
        found.append(Fault("--checkpoint", what, f"It has {steps}." if steps else "It has none yet."))
    if export.best and export.checkpoint is not None:
        found.append(Fault("--best", "--checkpoint is given too.", "Leave out one of the two."))
    elif export.best and not run.best_model.is_dir():
        found.append(
            Fault("--best", f"{run.name} has no best/.", "train.keep_best makes one at each better evaluation.")
        )
    if export.checkpoint is None and not export.best and not run.finished:
        fix = f"Add --checkpoint with one of the steps {steps}." if steps else "It has no checkpoint yet either."
        found.append(Fault(run.name, "is not finished.", fix))
    if export.keep_adapter and not run.recipe.lora:
        found.append(Fault("--keep-adapter", f"{run.name} has no adapter.", "Leave it out."))
    python = chain.run_env(run).python
    if not os.access(python, os.X_OK):
        found.append(Fault(run.name, f"its env has no python any more: {python}.", "Make it again there."))
    return found


def write(export: Export) -> int:
    """The exit code of the process that writes the folder; what it has to say it has said on stderr.

    Raises UserError with every fault that is found before it starts.
    """
    if found := faults(export):
        raise UserError(found)
    run = export.run
    code = CODE.format(code=str(Path(hpcft.__file__).parent.parent))
    words = [str(run.path), str(export.out), export.dtype, str(int(export.keep_adapter)), export.which]
    python = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    with scrubbed_environment():
        variables = {**os.environ, **hub_variables(chain.run_cluster(run)), **python}
        command = [str(chain.run_env(run).python), "-c", code, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, env=variables, check=False).returncode
