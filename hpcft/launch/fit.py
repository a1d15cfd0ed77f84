"""The fit: what a recipe asks for, held against what a cluster gives."""

from __future__ import annotations

from collections.abc import Iterator

from hpcft.errors import Fault
from hpcft.launch import local, slurm
from hpcft.launch.cluster import Cluster
from hpcft.recipe import RecipeFile
from hpcft.schema import walltime_seconds


def fit(file: RecipeFile, cluster: Cluster) -> Iterator[Fault]:
    """Every reason why this recipe cannot run on this cluster."""
    recipe, resources = file.recipe, file.recipe.resources
    if cluster.kind == "slurm" and not slurm.available():
        yield Fault(f"cluster {cluster.name}", "sbatch is not on PATH.", "Submit on a login node there.")
    if recipe.notify.mail and cluster.kind == "local":
        fix = "Use notify.command or notify.webhook."
        yield Fault(file.where("notify.mail"), "notify.mail is sent by Slurm, and this machine has none.", fix)
    where = file.where("resources.gpus")
    most = local.visible_gpus() if cluster.kind == "local" else cluster.gpus_per_node
    if most is not None and resources.gpus > most:
        has = (
            f"a node of {cluster.name} has {most}" if cluster.kind == "slurm" else f"this machine has {most or 'none'}"
        )
        fix = f"Ask for {most} at most." if most else "Write 0 to train on its CPUs."
        yield Fault(where, f"resources.gpus = {resources.gpus}: {has}.", fix)
    elif resources.gpus and cluster.kind == "slurm" and cluster.gpu_request is None:
        yield Fault(where, f"the file of {cluster.name} has no gpu_request, so none can be asked for.", "Add it there.")
    if recipe.train.precision == "bf16" and resources.gpus and not cluster.bf16:
        what = f'train.precision = "bf16": {cluster.name}\'s {cluster.gpu or "GPU"} has no bf16.'
        yield Fault(file.where("train.precision"), what, 'Use "fp16" or "fp32".')
    where = file.where("resources.walltime")
    if resources.walltime is None and cluster.max_walltime is None:
        yield Fault(
            where, f"resources.walltime is missing, and {cluster.name} has no max_walltime.", 'Write "2:00:00".'
        )
    elif _longer(resources.walltime, cluster.max_walltime):
        what = f'resources.walltime = "{resources.walltime}": {cluster.name} allows {cluster.max_walltime}.'
        yield Fault(where, what, "The chain goes on past it by itself: write a walltime within it.")
    if cluster.max_submit and cluster.jobs_may_submit and 1 + resources.queued > cluster.max_submit:
        what = f"resources.queued = {resources.queued}: {cluster.name} takes {cluster.max_submit} jobs of a user."
        yield Fault(file.where("resources.queued"), what, f"Write {cluster.max_submit - 1} at most.")


def _longer(asked: str | None, longest: str | None) -> bool:
    return bool(asked and longest) and walltime_seconds(asked or "") > walltime_seconds(longest or "")
