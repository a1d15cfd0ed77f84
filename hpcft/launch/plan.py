"""The plan: recipe, cluster and env held against each other; what will be sent, or every reason why it cannot."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.card import card_fault
from hpcft.launch.cluster import Choice, Cluster, ClusterFile, read_cluster_file
from hpcft.launch.condaenv import Env, find_env
from hpcft.launch.envfit import env_faults
from hpcft.launch.fetchrows import absent_rows
from hpcft.launch.fit import fit, wrong_site
from hpcft.launch.hub import absence_fault, model_folder
from hpcft.launch.inputs import recipe_faults
from hpcft.launch.predecessor import with_model_of_run
from hpcft.launch.room import disk, gigabytes, room_faults
from hpcft.launch.site import impossible
from hpcft.launch.slurm_site import Partition, read_partitions
from hpcft.launch.submission import Submission, job_walltime, make_submission
from hpcft.launch.weights import count_parameters, count_trained
from hpcft.recipe import Recipe
from hpcft.recipefile import Member, RecipeFile, check_members, check_recipe
from hpcft.rundir import RunDir
from hpcft.schema import expand


@dataclass(frozen=True)
class Plan:
    """A recipe that fits its cluster and env."""

    file: RecipeFile
    cluster: Cluster
    env: Env
    root: Path
    """Folder of all runs."""
    parameters: int | None
    """Of the model; None where its files do not tell, or are still on the hub."""
    trained: int | None
    """Of them, or of the adapters beside them, at most; None likewise."""
    overfull: Fault | None = None
    """That a card is too small, which a dry run answers with settings that fit."""

    @property
    def recipe(self) -> Recipe:
        return self.file.recipe

    @property
    def walltime(self) -> int:
        """Seconds of one job."""
        return job_walltime(self.recipe, self.cluster)

    @property
    def queued(self) -> int:
        """Jobs that are queued before any has run."""
        return first_jobs(self.recipe, self.cluster)

    def submission(self, run: RunDir, number: int, after: tuple[str, ...]) -> Submission:
        """The job of this number as it would be sent."""
        return make_submission(run, number, after, self.recipe, self.cluster, self.env)


def make_plan(
    path: Path, overrides: tuple[str, ...], cluster_name: str | None, runs: Path | None = None, dry: bool = False
) -> Plan:
    """The plan for a recipe file. Raises UserError with all faults of recipe, cluster, env and disk at once.

    A plan for a dry run may be too large for the card, and says so.
    """
    file, faults = check_recipe(path, overrides)
    return _planned(Member(file, tuple(faults)), cluster_name, runs, dry, read_partitions)


def make_plans(
    path: Path, overrides: tuple[str, ...], cluster_name: str | None, runs: Path | None = None, dry: bool = False
) -> list[Plan]:
    """The plan for each run that a recipe file means. Raises UserError with all faults of all of them at once."""
    members = check_members(path, overrides)
    partitions = cache(read_partitions)  # Slurm is asked once
    plans: list[Plan] = []
    found: dict[Fault, list[str]] = {}
    for member in members:
        try:
            plans.append(_planned(member, cluster_name, runs, dry, partitions))
        except UserError as error:
            label = member.file.cell.label if member.file and member.file.cell else ""
            for fault in error.faults:
                found.setdefault(fault, []).append(label)
    if found:
        raise UserError([of_some(fault, labels, len(members)) for fault, labels in found.items()])
    if plans[1:] and (crowd := _room_for_all(plans)):
        raise UserError(crowd)
    return plans


def of_some(fault: Fault, labels: list[str], members: int) -> Fault:
    """The fault with the runs of the matrix that have it, where not all do."""
    if len(labels) == members:
        return fault
    names = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if labels[3:] else "")
    return replace(fault, where=f"{fault.where} ({names})")


def _room_for_all(plans: Sequence[Plan]) -> Fault | None:
    """That the runs of a matrix have no room beside each other; each alone has."""
    known = [plan for plan in plans if plan.parameters is not None]
    needs = [disk(plan.recipe, plan.cluster, plan.root, plan.parameters or 0, plan.trained) for plan in known]
    total, least = sum(need.needed for need in needs), min((need.free for need in needs), default=0)
    if total <= least:
        return None
    file = plans[0].file
    what = f"the {len(plans)} runs take {gigabytes(total)}, and {gigabytes(least)} are free in {plans[0].root}."
    fix = "Keep fewer with train.keep_checkpoints, or name another folder with --runs."
    return Fault(file.where("matrix"), what, fix)


def _planned(
    member: Member,
    cluster_name: str | None,
    runs: Path | None,
    dry: bool,
    ask: Callable[[], dict[str, Partition] | None],
) -> Plan:
    file, faults = member.file, list(member.faults)
    if file is None:
        raise UserError(faults)
    site = env = root = parameters = trained = overfull = None
    try:
        site = find_site(file, cluster_name)
        faults += wrong_site(site.cluster, "--cluster" if cluster_name else file.where("cluster"))
        root = runs_root(runs, site.cluster)
        file = with_model_of_run(file, root)
    except UserError as error:
        faults += error.faults
    try:
        env = find_env(file.recipe.env, file.where("env"), site.cluster.folder("envs") if site else None)
        faults += env_faults(env, file, site.cluster if site else None)
    except UserError as error:
        faults += error.faults
    faults += recipe_faults(file)
    if site is not None and not file.doubtful & {"cluster", "train", "resources"}:
        unfit = list(fit(file, site.cluster))
        if site.cluster.kind == "slurm" and not unfit and (partitions := ask()):
            unfit += impossible(file, site, partitions)
        faults += unfit
    if site is not None and "model" not in file.doubtful:
        folder = model_folder(site.cluster, file.recipe.model)
        parameters = count_parameters(folder) if folder else None
        trained = count_trained(folder, file.recipe) if folder else None
        faults += _model_faults(file, site.cluster, cluster_name, root, parameters, trained)
        if parameters is not None and not file.doubtful & {"train", "resources", "lora"}:
            overfull = card_fault(file, site.cluster, parameters)
            faults += [overfull] if overfull and not dry else []
    if faults or site is None or env is None or root is None:
        raise UserError(faults)
    return Plan(file, site.cluster, env, root, parameters, trained, overfull)


def find_site(file: RecipeFile, name: str | None) -> ClusterFile:
    """The cluster that is named, else the recipe's, with its cache as a whole path. Raises UserError."""
    site = read_cluster_file(Choice(name or file.recipe.cluster, "--cluster" if name else file.where("cluster")))
    cache = site.cluster.folder("cache")  # its variables may have no value on a compute node
    if cache is None:
        return site
    return replace(site, cluster=site.cluster.model_copy(update={"cache": str(cache.absolute())}))


def runs_root(given: Path | None, cluster: Cluster) -> Path:
    """The folder of all runs: --runs, else HPCFT_RUNS, else the cluster's. Raises UserError."""
    named = str(given or os.environ.get("HPCFT_RUNS", ""))
    # Resolved: jobs carry this path in Slurm's queue, and are found by it however a later command spells it.
    return (expand(named) if named else cluster.runs_folder()).resolve()


def _model_faults(
    file: RecipeFile,
    cluster: Cluster,
    cluster_name: str | None,
    root: Path | None,
    parameters: int | None,
    trained: int | None,
) -> Iterator[Fault]:
    """What keeps a job from its model and rows: the hub out of reach, or no room."""
    words = ["hpcft", "fetch", str(file.path), *(["--cluster", cluster_name] if cluster_name else [])]
    command = shlex.join([*words, *(word for text in file.overrides for word in ("--set", text))])
    if fault := absence_fault(file.where("model.path"), cluster, file.recipe.model, command):
        yield fault
    if not file.doubtful & {"data", "phases"}:
        yield from absent_rows(file, cluster, command)
    if parameters is not None and root is not None and not file.doubtful & {"train", "resources"}:
        yield from room_faults(file, cluster, root, parameters, trained)


def first_jobs(recipe: Recipe, cluster: Cluster) -> int:
    """Jobs to have in the queue before any runs: the whole chain where jobs cannot queue the next themselves."""
    most = recipe.resources.jobs
    return min(most, 1 + recipe.resources.queued if cluster.jobs_may_submit else cluster.max_submit or most)
