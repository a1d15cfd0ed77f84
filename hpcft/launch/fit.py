"""The fit: what a recipe asks for, held against what a cluster gives."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from hpcft.errors import Fault
from hpcft.launch import local, slurm
from hpcft.launch.cluster import Cluster, files_here, user_folder
from hpcft.launch.trackfit import tracker_faults
from hpcft.launch.words import count
from hpcft.recipefile import RecipeFile
from hpcft.schema import walltime_seconds

INT8_SINCE = 75
"""Compute capability, times ten, of the first cards whose tensor cores multiply integers (LLM.int8 needs them)."""
OLD_CARDS = {"V100": "sm_70", "P100": "sm_60"}
"""Those before it, for cluster files that name a card alone."""


def fit(file: RecipeFile, cluster: Cluster) -> Iterator[Fault]:
    """Every reason why this recipe cannot run on this cluster."""
    recipe, resources = file.recipe, file.recipe.resources
    if cluster.kind == "slurm" and not slurm.available():
        yield Fault(f"cluster {cluster.name}", "sbatch is not on PATH.", "Submit on a login node there.")
    if recipe.notify.mail and cluster.kind == "local":
        fix = "Use notify.command or notify.webhook."
        yield Fault(file.where("notify.mail"), "notify.mail is sent by Slurm, and this machine has none.", fix)
    if "track" not in file.doubtful:
        yield from tracker_faults(file, cluster)
    if cluster.account_needed and not (resources.account or cluster.account):
        yield _no_account(file, cluster)
    yield from _gpu_faults(file, cluster)
    if recipe.train.precision == "bf16" and resources.gpus and not cluster.bf16:
        what = f'train.precision = "bf16": {cluster.name}\'s {cluster.gpu or "GPU"} has no bf16.'
        yield Fault(file.where("train.precision"), what, 'Use "fp16" or "fp32".')
    if recipe.model.quantize == "int8" and resources.gpus and (arch := _arch(cluster)) and arch < INT8_SINCE:
        what = f'model.quantize = "int8": bitsandbytes multiplies so from compute capability {INT8_SINCE / 10} on,'
        what += f" and {cluster.name}'s {cluster.gpu or 'GPU'} has {arch / 10}."
        yield Fault(file.where("model.quantize"), what, 'Use "nf4".')
    if cluster.cpus_per_node:
        yield from core_faults(file, cluster.cpus_per_node, f"one of {cluster.name} has {cluster.cpus_per_node}")
    yield from _walltime_faults(file, cluster)
    if cluster.max_submit and cluster.jobs_may_submit and 1 + resources.queued > cluster.max_submit:
        what = f"resources.queued = {resources.queued}: {cluster.name} takes {cluster.max_submit} jobs of a user."
        yield Fault(file.where("resources.queued"), what, f"Write {cluster.max_submit - 1} at most.")


def _arch(cluster: Cluster) -> int | None:
    """70 of `sm_70`; None where the cluster's file has no gpu_arch, nor a card that is known here."""
    digits = re.findall(r"\d+", cluster.gpu_arch or OLD_CARDS.get((cluster.gpu or "").upper()[:4], ""))
    return int(digits[0]) if digits else None


def core_faults(file: RecipeFile, most: int, has: str) -> Iterator[Fault]:
    """That the recipe's processes need more cores than a node has, at the key that is to blame; `has` says how many."""
    resources, number = file.recipe.resources, file.recipe.local_processes
    each = resources.cpus_per_process or (0 if resources.gpus else 1)
    if number * each <= most:
        return
    key, value, fix = "resources.cpus_per_process", each, most // number
    if resources.processes and not resources.gpus and number > most:  # one core each is too many already
        key, value, fix = "resources.processes", number, most // each
    what = f"{key} = {value}: {number * each} cores for the {count(number, 'process')} of a node, and {has}."
    yield Fault(file.where(key), what, f"Write {max(1, fix)} at most.")


def wrong_site(cluster: Cluster, where: str) -> Iterator[Fault]:
    """That this is a login node of another site whose file is known, and not of the cluster's."""
    if cluster.kind == "local" or cluster.is_here():
        return
    for other in files_here()[:1]:
        name = other.cluster.name
        what = f"{cluster.name} is not here: {socket.gethostname()} is a login node of {name}."
        yield Fault(where, what, f'Write "{name}".')
        return


def _no_account(file: RecipeFile, cluster: Cluster) -> Fault:
    own = user_folder() / f"{cluster.name}.yaml"
    what = f"{cluster.name} takes no job without an account."
    fix = (
        f"Write `account: ...` into the recipe's resources, or `extends: {cluster.name}` and `account: ...` into {own}."
    )
    return Fault(file.where("resources.account"), what, fix)


def _gpu_faults(file: RecipeFile, cluster: Cluster) -> Iterator[Fault]:
    resources, where = file.recipe.resources, file.where("resources.gpus")
    if cluster.kind == "local" and resources.nodes > 1:
        what = f"resources.nodes = {resources.nodes}: this machine is one node."
        yield Fault(file.where("resources.nodes"), what, "Write 1.")
    most = local.visible_gpus() if cluster.kind == "local" else cluster.gpus_per_node
    if most is not None and resources.gpus > most:
        has = (
            f"a node of {cluster.name} has {most}" if cluster.kind == "slurm" else f"this machine has {most or 'none'}"
        )
        fix = f"Ask for {most} at most." if most else "Write 0 to train on its CPUs."
        yield Fault(where, f"resources.gpus = {resources.gpus}: {has}.", fix)
    elif resources.gpus and cluster.kind == "slurm" and cluster.gpu_request is None:
        yield Fault(where, f"the file of {cluster.name} has no gpu_request, so none can be asked for.", "Add it there.")


def _walltime_faults(file: RecipeFile, cluster: Cluster) -> Iterator[Fault]:
    where, asked = file.where("resources.walltime"), file.recipe.resources.walltime
    partition, qos = file.recipe.resources.partition, file.recipe.resources.qos
    limits = cluster.walltime_limits(partition, qos)
    if asked is None and not limits:
        lacks = f"{cluster.name} has no max_walltime"
        if cluster.walltime_limits(partition):
            lacks = f"what the qos {qos} allows on {cluster.name} is not known"
        what = f"resources.walltime is missing, and {lacks}."
        yield Fault(where, what, 'Write "2:00:00".')
    for who, longest in limits.items():
        if asked and walltime_seconds(asked) > walltime_seconds(longest):
            what = f'resources.walltime = "{asked}": {who} on {cluster.name} allows {longest}.'
            yield Fault(where, what, "The chain goes on past it by itself: write a walltime within it.")
            return
