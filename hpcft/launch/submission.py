"""A submission: one job as data, before anything is sent; it can be read, compared and printed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.schema import WHOLE_NODES, walltime_seconds
from hpcft.sections import Resources

SIGNAL_LEAD = 180
"""Seconds before the end at which Slurm is asked for USR2. It may come 60 s earlier still (sbatch's manual), and
only confirms the deadline that the supervisor reads from its clock."""
ELSEWHERE = "Name another folder with --runs or HPCFT_RUNS."


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
    """sbatch options, sorted; an empty value is a bare flag."""
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
    """Seconds of one job: the recipe's, else the longest that cluster and association allow; whole minutes where
    Slurm counts them."""
    limits = cluster.walltime_limits(recipe.resources.partition, recipe.resources.qos)
    text = recipe.resources.walltime or next(iter(limits.values()), None)
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
    asked = {**slurm_options(recipe, cluster), **batch_options(cluster)} if cluster.kind == "slurm" else {}
    if excluded and asked:
        asked["exclude"] = ",".join([*filter(None, [asked.get("exclude")]), *excluded])
    walltime = job_walltime(recipe, cluster)
    return Submission(run.path, number, after, env.python, setup, tuple(sorted(asked.items())), walltime)


def code_setup(code: Path) -> tuple[str, ...]:
    """Shell lines that make python import hpcft from this folder and nothing from the current one."""
    return (f"export PYTHONPATH={shlex.quote(str(code))} PYTHONSAFEPATH=1",)


def slurm_options(recipe: Recipe, cluster: Cluster) -> dict[str, str]:
    """Options of sbatch and srun that the recipe and the cluster bring; an empty value is a bare flag.

    Time, names and dependency are not among them.
    """
    resources = recipe.resources
    # One python on the first node: it starts the processes of all nodes itself.
    options = {"nodes": str(resources.nodes), "ntasks" if resources.nodes == 1 else "ntasks-per-node": "1"}
    for key in ("partition", "account", "qos", "constraint"):
        if value := getattr(resources, key) or getattr(cluster, key):
            options[key] = value
    if cluster.reservation:
        options["reservation"] = cluster.reservation
    if cluster.exclude:
        options["exclude"] = ",".join(cluster.exclude)
    options |= gpu_options(resources.gpus, resources.nodes, cluster)
    cpus = resources.cpus_per_process or (cluster.cpus_per_gpu if resources.gpus else None)
    if cpus or (resources.processes or 1) > 1:  # without a rule, a core for each
        options["cpus-per-task"] = str((cpus or 1) * recipe.local_processes)
    options |= _memory_options(resources, cluster)
    return {**options, **cluster.options}


def gpu_options(gpus: int, nodes: int, cluster: Cluster) -> dict[str, str]:
    """The option that asks for so many GPUs on each node; none for no GPU, and where jobs have whole nodes."""
    if not gpus or cluster.gpu_request in (None, WHOLE_NODES):
        return {}
    key, _, value = cluster.gpu_request.partition("=")
    of_the_job = key == "gpus"  # the others count by node, or by task, of which a node has one
    return {key: value.format(gpus=gpus * nodes if of_the_job else gpus)}


def _memory_options(resources: Resources, cluster: Cluster) -> dict[str, str]:
    """The recipe's memory, else the cluster's rule."""
    if resources.memory:
        return {"mem": resources.memory}
    if cluster.memory_per_gpu and resources.gpus:
        return {"mem-per-gpu": cluster.memory_per_gpu}
    if cluster.memory_per_cpu:
        return {"mem-per-cpu": cluster.memory_per_cpu}
    return {"mem": cluster.memory_per_node} if cluster.memory_per_node else {}


def batch_options(cluster: Cluster) -> dict[str, str]:
    """Options that only sbatch knows."""
    # Slurm queues a preempted job again only if it may: a site's JobRequeue can be 0.
    return {"requeue": ""} if cluster.preemption == "requeue" else {}


def flags(options: Mapping[str, str]) -> list[str]:
    """Options as arguments of a command: `--mem=60G`, and a bare `--contiguous` for an empty value."""
    return [f"--{key}={value}" if value else f"--{key}" for key, value in sorted(options.items())]


def check_folder(runs: Path) -> None:
    """Raise UserError if jobs could not work in this folder for the characters in its path."""
    text = str(runs)
    unfit = {
        "%": "Slurm and submitit put job numbers in the place of words with it",
        ":": "it divides the folders of PYTHONPATH",
        "\\": "sbatch drops it",
    }
    for sign, why in unfit.items():
        if sign in text:
            raise UserError(Fault(text, f'no jobs can run in a folder with "{sign}" in its path: {why}.', ELSEWHERE))
    if not text.isprintable():
        raise UserError(
            Fault(repr(text)[1:-1], "no jobs can run in a folder with a line break in its path.", ELSEWHERE)
        )
