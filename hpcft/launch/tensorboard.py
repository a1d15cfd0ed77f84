"""`hpcft tensorboard --on-node`: TensorBoard in a small job of its own, which ends when the command does."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hpcft
from hpcft.children import dying_with, ended_by_signals
from hpcft.errors import Fault, UserError
from hpcft.launch import chain, slurm
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.debug import LEAK
from hpcft.launch.inenv import CODE, env_faults
from hpcft.launch.slurm_command import on_a_node
from hpcft.launch.submission import slurm_options
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.schema import walltime_seconds
from hpcft.sections import Resources

MODULE = "hpcft.job.tensorboard"
WALLTIME = "2:00:00"
"""Of the job, where neither command nor cluster names one; less where the cluster gives less."""
CORES = 2
"""For TensorBoard, and for the stitcher beside it."""
FAREWELL = 15.0
"""Seconds that the job has to clean up on its node, before it is killed."""


@dataclass(frozen=True)
class Place:
    """Where TensorBoard will run, and what it is told."""

    cluster: Cluster
    env: Env
    resources: Resources
    walltime: str | None
    words: tuple[str, ...]
    """The folder of the runs, the way to the login node, a port or nothing, and the runs' names."""

    @property
    def options(self) -> dict[str, str]:
        """Options of srun."""
        own, limits = self.cluster.tensorboard_options, self.cluster.walltime_limits()
        small = {"nodes": "1", "ntasks": "1", "cpus-per-task": str(CORES)}
        if own:  # a place of its own, of which partition and constraint of the run's jobs say nothing
            account = self.resources.account or self.cluster.account
            asked = {**small, **({"account": account} if account else {}), **own}
        else:
            asked = {**slurm_options(Recipe.model_construct(resources=self.resources), self.cluster), **small}
        shortest = min([WALLTIME, *limits.values()], key=walltime_seconds)
        return {"time": shortest, **asked, **({"time": self.walltime} if self.walltime else {})}

    @property
    def command(self) -> list[str]:
        """The srun that runs it there, in the run's env and with the code of now."""
        code = CODE.format(code=str(Path(hpcft.__file__).parent.parent), module=MODULE)
        lines = (
            *self.cluster.setup,
            *self.env.setup(),
            "export PYTHONPATH= PYTHONSAFEPATH=1",
            LEAK,
            "exec " + shlex.join([str(self.env.python), "-c", code, *self.words]),
        )
        return on_a_node(self.options, "hpcft-tensorboard", ["bash", "-c", "\n".join(lines)])


def find_place(runs: Sequence[RunDir], cluster: Cluster | None, walltime: str | None, words: Sequence[str]) -> Place:
    """The place for these runs: the newest one's cluster and env, unless a cluster is named. Raises UserError."""
    newest = max(runs, key=lambda run: float((run.submission or {}).get("time", 0)))
    cluster = cluster or chain.run_cluster(newest)
    faults = list(env_faults(newest))
    if cluster.kind != "slurm":
        what = f"{newest.name} ran on this machine, and not as a job of Slurm."
        faults.append(Fault("--on-node", what, "Leave it out, or name a cluster with --cluster."))
    if faults:
        raise UserError(faults)
    own = newest.recipe.resources
    places = {key: getattr(own, key) for key in ("account", "partition", "qos", "constraint")}
    resources = Resources(gpus=0, processes=1, **places)
    return Place(cluster, chain.run_env(newest), resources, walltime, tuple(words))


def show_from(place: Place) -> int:
    """The exit code of the job, once it has ended or Ctrl-C was pressed; what it says is printed as it comes.

    Its stdin is a pipe of ours: when that ends, however we ended, so does the job.
    """
    command = place.command
    print(f"asks Slurm for a node: {' '.join(word for word in command[1:-3])}", flush=True)
    begun = False
    with ended_by_signals(), contextlib.suppress(KeyboardInterrupt), slurm.scrubbed_environment():
        srun = _start(command)
        assert srun.stdout
        try:
            for line in srun.stdout:
                begun = True
                print(line, end="", flush=True)
            code = srun.wait()
        finally:
            _end(srun, FAREWELL if begun else 0.0)
        if code and not begun:
            what = "its job came to nothing; why, stands above."
            fix = "What it asks for stands in the cluster's file: `tensorboard_options`."
            raise UserError(Fault(f"cluster {place.cluster.name}", what, fix))
        return code
    return 0


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # srun takes a Ctrl-C for a question, and its job goes on
            preexec_fn=dying_with(os.getpid(), signal.SIGTERM),
        )
    except FileNotFoundError:
        raise UserError(Fault(command[0], "is not on PATH.", "Call this on a login node of the cluster.")) from None


def _end(srun: subprocess.Popen[str], patience: float) -> None:
    """End the job: by the end of its stdin, which lets it clean up, else by srun, which has it killed."""
    assert srun.stdin
    srun.stdin.close()
    try:
        srun.wait(patience)
    except subprocess.TimeoutExpired:
        srun.terminate()  # a kill would end srun, and not its job
        srun.wait()
