"""The plan: recipe, cluster and env held against each other; what will be sent, or every reason why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Choice, Cluster, read_cluster
from hpcft.launch.condaenv import Env, find_env, lacking
from hpcft.launch.fit import fit, wrong_site
from hpcft.launch.inputs import recipe_faults
from hpcft.launch.submission import Submission, job_walltime, make_submission
from hpcft.recipe import Recipe, RecipeFile, check_recipe
from hpcft.rundir import RunDir


@dataclass(frozen=True)
class Plan:
    """A recipe that fits its cluster and env."""

    file: RecipeFile
    cluster: Cluster
    env: Env

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


def make_plan(path: Path, overrides: tuple[str, ...], cluster_name: str | None) -> Plan:
    """The plan for a recipe file. Raises UserError with all faults of recipe, cluster and env at once."""
    file, faults = check_recipe(path, overrides)
    if file is None:
        raise UserError(faults)
    choice = Choice(cluster_name or file.recipe.cluster, "--cluster" if cluster_name else file.where("cluster"))
    cluster = env = None
    try:
        cluster = read_cluster(choice)
        faults += wrong_site(cluster, choice.where)
    except UserError as error:
        faults += error.faults
    try:
        env = find_env(file.recipe.env, file.where("env"))
        if missing := lacking(env):
            what = f"the env {env.prefix} has no {', '.join(missing)}, which every job needs."
            raise UserError(Fault(file.where("env"), what, "Install hpcft there."))
    except UserError as error:
        faults += error.faults
    faults += recipe_faults(file)
    if cluster is not None and not file.doubtful & {"cluster", "train", "resources"}:
        faults += fit(file, cluster)
    if faults or cluster is None or env is None:
        raise UserError(faults)
    return Plan(file, cluster, env)


def first_jobs(recipe: Recipe, cluster: Cluster) -> int:
    """Jobs to have in the queue before any runs: the whole chain where jobs cannot queue the next themselves."""
    most = recipe.resources.jobs
    return min(most, 1 + recipe.resources.queued if cluster.jobs_may_submit else cluster.max_submit or most)
