"""One command on a compute node, waited for: what srun is asked, and what it answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.slurm import scrubbed_environment
from hpcft.launch.submission import flags


def on_a_node(options: Mapping[str, str], name: str, command: Sequence[str]) -> list[str]:
    """The srun that runs this command in a job of its own."""
    return ["srun", *flags(options), f"--job-name={name}", *command]


def run_command(
    command: Sequence[str],
    folder: Path | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    read: bool = False,
) -> tuple[int, str]:
    """Exit code and, with `read`, what the command printed; its other words go to the terminal as they come.

    Works for srun and for a plain command, and is over when we are stopped: what pip still did in an env would meet the
    next creation there. Raises UserError if the program is not there.
    """
    try:
        stdout = subprocess.PIPE if read else None
        with scrubbed_environment():
            more = {**os.environ, **(variables or {})}
            child = subprocess.Popen(command, cwd=folder, env=more, stdout=stdout, stdin=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        raise UserError(Fault(command[0], "is not on PATH.", "Run this on a login node of the cluster.")) from None
    try:
        said = child.communicate()[0]
    except BaseException:
        child.terminate()  # a kill would end srun, and not its job
        child.wait()
        raise
    return child.returncode, said or ""
