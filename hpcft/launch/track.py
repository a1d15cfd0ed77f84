"""`hpcft track`: what a run's trackers have not got yet is handed on from here, in the run's env."""

from __future__ import annotations

from collections.abc import Iterator

from hpcft.disk import locked, read_json
from hpcft.errors import Fault, UserError
from hpcft.launch import chain
from hpcft.launch.hub import hub_variables
from hpcft.launch.inenv import call_python, env_faults
from hpcft.launch.trackfit import variables
from hpcft.rundir import RunDir

MODULE = "hpcft.train.track"


def faults(run: RunDir) -> Iterator[Fault]:
    """Why a run has nothing to hand on."""
    if not run.recipe.track.to:
        fix = f"`hpcft resume {run.name} --set track.to=[wandb]` names one for the jobs to come."
        yield Fault(run.name, "its recipe names no tracker (track.to).", "" if run.finished else fix)
    elif not any(job.resumed for job in run.jobs()):
        yield Fault(run.name, "no job of it has trained yet.")
    yield from env_faults(run)


def track(run: RunDir) -> dict[str, str | None]:
    """By tracker, why it did not take the curve, None where it did. Raises UserError where nothing can be sent.

    No job of the run may be at it meanwhile, since it would send the same steps.
    """
    if found := list(faults(run)):
        raise UserError(found)
    cluster, python = chain.run_cluster(run), chain.run_env(run).python
    last = [job for job in run.jobs() if job.resumed][-1]
    outcome: dict[str, str | None] = {}
    with locked(run.lock.path) as still:
        if not still:
            raise UserError(Fault(run.name, "a job of it is running, and hands the curve on itself."))
        for name in dict.fromkeys(run.recipe.track.to):
            words = [str(run.path), str(last.number), str(last.attempt), name]
            code = call_python(python, MODULE, words, {**hub_variables(cluster), **variables(cluster.internet)})
            facts = read_json(run.trackers / f"{name}.json") or {}
            outcome[name] = f"it ended with exit code {code}" if code else facts.get("fault")
    return outcome
