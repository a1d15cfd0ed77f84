"""`hpcft debug`: a shell where a job would run, in the env and with the variables that it would have."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import hpcft
from hpcft.launch import slurm
from hpcft.launch.condaenv import worker_variables
from hpcft.launch.hub import hub_variables
from hpcft.launch.plan import Plan
from hpcft.launch.submission import code_setup, flags, slurm_options
from hpcft.rundir import make_root

SHORT = "0:30:00"
"""Walltime of a debug shell where neither command nor cluster names one."""
LEAK = "unset ${!SLURM_NTASKS*} ${!SLURM_STEP*} SLURM_PROCID SLURM_LOCALID SLURM_TASKS_PER_NODE"
"""What srun sets for its own task makes libraries believe that they were started as ranks."""


def shell_lines(plan: Plan) -> tuple[str, ...]:
    """What the shell reads first: the setup of the job, the code as it is now, and a prompt that says where it is."""
    here = Path(hpcft.__file__).parent.parent
    variables = worker_variables(plan.recipe.resources.cpus_per_process or 1, plan.cluster.internet)
    return (
        "[ -r ~/.bashrc ] && . ~/.bashrc",
        *plan.cluster.setup,
        *plan.env.setup(),
        *code_setup(here),
        "export " + " ".join(f"{key}={value}" for key, value in variables.items()),
        *(f"export {key}={shlex.quote(value)}" for key, value in hub_variables(plan.cluster).items()),
        LEAK,
        f"PS1='[hpcft {plan.recipe.name} on \\h] \\w\\$ '",
    )


def command(plan: Plan, rcfile: Path, walltime: str | None) -> list[str]:
    """The command that opens the shell: srun on a cluster, bash itself on this machine."""
    bash = ["bash", "--rcfile", str(rcfile), "-i"]
    if plan.cluster.kind == "local":
        return bash
    options = {**slurm_options(plan.recipe, plan.cluster), "time": walltime or SHORT}
    if walltime is None:
        options |= plan.cluster.debug_options
    return ["srun", *flags(options), f"--job-name=hpcft-debug-{plan.recipe.name}", "--pty", *bash]


def describe(plan: Plan, walltime: str | None) -> str:
    """The whole of it as text, for `--dry-run`."""
    return "\n".join([shlex.join(command(plan, Path("RCFILE"), walltime)), "", "# RCFILE", *shell_lines(plan)])


def open_shell(plan: Plan, root: Path, walltime: str | None) -> int:
    """The shell's exit code, after the user has left it."""
    make_root(root)  # the file must be where the compute node sees it
    handle, name = tempfile.mkstemp(prefix=".debug-", suffix=".sh", dir=root)
    rcfile = Path(name)
    try:
        # bash has read it whole before its first line runs, so that it is gone even if the terminal closes.
        lines = (f"rm -f {shlex.quote(name)}", *shell_lines(plan))
        os.write(handle, ("\n".join(lines) + "\n").encode())
        os.close(handle)
        with slurm.scrubbed_environment():
            return subprocess.call(command(plan, rcfile, walltime))
    finally:
        rcfile.unlink(missing_ok=True)
