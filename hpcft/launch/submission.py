"""A submission: one job as data, before anything is sent; it can be read, compared and printed."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.schema import walltime_seconds

SIGNAL_LEAD = 180
"""Seconds before the end at which Slurm is asked for USR2. It may come 60 s earlier still (sbatch's manual), and
only confirms the deadline that the supervisor reads from its clock."""


@dataclass(frozen=True)
class Submission:
    """All that the scheduler is told about one job."""

    run: Path
    number: int
    after: tuple[str, ...]
    """Ids of jobs that must have ended, however they did."""
    python: Path
    setup: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """sbatch options, sorted."""
    walltime: int
    """Seconds."""

    @property
    def folder(self) -> Path:
        return RunDir(self.run).job(self.number).path

    @property
    def job_name(self) -> str:
        return f"hpcft-{self.run.name}-{self.number:03d}"

    @property
    def signal_lead(self) -> int:
        """Seconds from the signal to the end; a third of a short job."""
        return min(SIGNAL_LEAD, self.walltime // 3)

    @property
    def comment(self) -> str:
        """Marks the job as this run's in Slurm's queue, should a kill keep its id from being recorded."""
        return f"hpcft:{self.run}:{self.number}"


def job_walltime(recipe: Recipe, cluster: Cluster) -> int:
    """Seconds of one job: the recipe's, else the cluster's longest; whole minutes where Slurm counts them."""
    text = recipe.resources.walltime or cluster.max_walltime
    if text is None:
        raise ValueError("no walltime")
    seconds = walltime_seconds(text)
    return seconds if cluster.kind == "local" else math.ceil(seconds / 60) * 60


def make_submission(
    run: RunDir,
    number: int,
    after: tuple[str, ...],
    recipe: Recipe,
    cluster: Cluster,
    env: Env,
    excluded: tuple[str, ...] = (),
) -> Submission:
    """The job of this number, as data; `excluded` are nodes that failed a job of this run alone."""
    setup = (*cluster.setup, *env.setup(), *code_setup(run.code))
    asked = slurm_options(recipe, cluster) if cluster.kind == "slurm" else {}
    if excluded and asked:
        asked["exclude"] = ",".join([*filter(None, [asked.get("exclude")]), *excluded])
    options = tuple(sorted(asked.items()))
    walltime = job_walltime(recipe, cluster)
    return Submission(run.path, number, after, env.python, setup, options, walltime)


def code_setup(code: Path) -> tuple[str, ...]:
    """Shell lines that make python import hpcft from this folder and nothing from the current one."""
    return (f"export PYTHONPATH={shlex.quote(str(code))} PYTHONSAFEPATH=1",)


def slurm_options(recipe: Recipe, cluster: Cluster) -> dict[str, str]:
    """sbatch options that the recipe and the cluster bring; time, names and dependency are not among them."""
    resources = recipe.resources
    options: dict[str, str] = {"nodes": "1", "ntasks": "1"}
    for key in ("partition", "account", "qos", "constraint"):
        if value := getattr(cluster, key):
            options[key] = value
    if resources.gpus and cluster.gpu_request:
        key, _, value = cluster.gpu_request.partition("=")
        options[key] = value.format(gpus=resources.gpus)
    if cpus := resources.cpus_per_process or (cluster.cpus_per_gpu if resources.gpus else None):
        options["cpus-per-task"] = str(cpus * recipe.processes)
    if memory := resources.memory:
        options["mem"] = memory
    elif cluster.memory_per_gpu and resources.gpus:
        options["mem-per-gpu"] = cluster.memory_per_gpu
    return {**options, **cluster.options}
