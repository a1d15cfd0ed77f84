"""The forecast: how many jobs a run will need, and what they cost, from what an earlier run of its kind has taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcft.disk import read_json
from hpcft.interval import save_interval, time_between_failures
from hpcft.launch.pace import evaluations, jobs_needed, tests
from hpcft.launch.plan import Plan
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir, find_runs

MATTERS = {
    "task": None,
    "model": ("path", "freeze", "quantize"),
    "lora": None,
    "data": ("max_length", "loss_on"),
    "train": ("batch_size", "batch_tokens", "grouping", "micro_batch_size", "precision"),
    "resources": ("nodes", "gpus", "processes", "cpus_per_process", "partition", "constraint"),
}
"""What two recipes must have in common for the steps of one to take as long as those of the other."""
SITE = ("name", "gpu", "partition")


@dataclass(frozen=True)
class Measured:
    """What the jobs of an earlier run took, in seconds."""

    run: str
    jobs: int
    """That trained."""
    step: float
    evaluation: float
    test: float
    """Of the held-out rows."""
    save: float
    """Until it is on disk, as at the end of a job."""
    stall: float
    """Of a save beside the training."""
    start: float
    """Of a job, before its first step and after its last save."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take if all goes as it did in the earlier one; queue waits are not in it."""

    measured: Measured
    steps: int
    jobs: int | None
    """None: one job has no time for more than its own start and save."""
    seconds: float
    """Of all jobs together."""
    gpu_hours: float
    useful: float
    """Share of those seconds that trains."""


def forecast(plan: Plan) -> Forecast | None:
    """The forecast for a plan; None where no earlier run in its folder tells enough."""
    recipe, cluster = plan.recipe, plan.cluster
    found = next(_measured(plan), None)
    if found is None:
        return None
    run, measured = found
    ends = _ends(recipe, run)
    if ends is None:
        return None
    steps = ends[-1]
    work = (
        steps * measured.step
        + evaluations(recipe, 0, steps, ends) * measured.evaluation
        + tests(recipe, 0, steps, ends) * measured.test
        + steps // _save_every(plan, measured) * measured.stall
    )
    lost = measured.start + measured.save
    jobs = jobs_needed(work, plan.walltime, lost + cluster.stop_margin)
    seconds = work + (jobs or 0) * lost
    hours = seconds / 3600 * recipe.resources.gpus * recipe.resources.nodes
    return Forecast(measured, steps, jobs, seconds, hours, steps * measured.step / seconds)


def _save_every(plan: Plan, measured: Measured) -> int:
    """Steps between two saves; with `auto`, as a run without failures will find it."""
    every = plan.recipe.train.save_every
    if every != "auto":
        return every
    return save_interval(measured.stall, measured.save, measured.step, plan.walltime, time_between_failures([]))


def _measured(plan: Plan) -> Iterator[tuple[RunDir, Measured]]:
    """Earlier runs of this kind that have trained: those on the same rows first, then the newest."""
    kind = _kind(plan.recipe.model_dump(mode="json"), plan.cluster.model_dump(mode="json"))
    alike = []
    for run in find_runs(plan.root):
        try:
            record = run.submission or {}
            if _kind(record["recipe"], record["cluster"]) == kind:
                same_rows = record["recipe"]["data"]["train"] == plan.recipe.data.train
                alike.append((same_rows, float(record["time"]), run))
        except (KeyError, TypeError, ValueError, OSError):
            continue  # no whole run
    for _, _, run in sorted(alike, key=lambda one: one[:2], reverse=True):
        with contextlib.suppress(KeyError, TypeError, ValueError, OSError):  # of an hpcft with other keys
            if measured := measure(run):
                yield run, measured


def _kind(recipe: Mapping[str, Any], cluster: Mapping[str, Any]) -> list[object]:
    values: list[object] = [cluster.get(key) for key in SITE]
    for section, keys in MATTERS.items():
        values += [recipe.get(section)] if keys is None else [recipe[section].get(key) for key in keys]
    for phase in recipe.get("phases") or ():
        values += [phase[section].get(key) for section in ("data", "train") for key in MATTERS[section] or ()]
    return values


def measure(run: RunDir) -> Measured | None:
    """What the jobs of this run took; None if none of them has trained to an ending."""
    recipe = run.recipe
    ends = [int(phase["ends"]) for phase in run.phases] or [run.total_steps() or 0]
    trained = [(job, ended) for job in run.jobs() if (ended := job.ended) and _steps_done(job, ended)]
    whole = [(job, ended) for job, ended in trained if "wall_seconds" in ended]
    if not whole:
        return None
    spent = [ended["seconds"] for _, ended in trained]
    steps = sum(_steps_done(job, ended) for job, ended in trained)
    ways = [(_began(job), int(ended["last_step"])) for job, ended in trained]
    looks = sum(evaluations(recipe, first, last, ends) for first, last in ways)
    asked = sum(tests(recipe, first, last, ends) for first, last in ways)
    saved = [ended for _, ended in trained if "save_seconds" in ended]
    saves = [float(ended["save_seconds"]) for ended in saved]
    starts = [max(0.0, ended["wall_seconds"] - _worked(ended["seconds"])) for _, ended in whole]
    return Measured(
        run=run.name,
        jobs=len(trained),
        step=sum(seconds.get("train", 0.0) for seconds in spent) / steps,
        evaluation=sum(seconds.get("evaluate", 0.0) for seconds in spent) / looks if looks else 0.0,
        test=sum(seconds.get("test", 0.0) for seconds in spent) / asked if asked else 0.0,
        save=_mean(saves),
        stall=_mean([float(ended.get("save_stall_seconds", 0.0)) for ended in saved]),
        start=sum(starts) / len(starts),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _worked(seconds: Mapping[str, float]) -> float:
    return sum(seconds.get(phase, 0.0) for phase in ("train", "evaluate", "test", "save"))


def _ends(recipe: Recipe, run: RunDir) -> list[int] | None:
    """Steps done at the end of each phase; for epochs only where an earlier run has counted the same rows."""
    ends, done = [], 0
    for number, each in enumerate(recipe.each_phase()):
        steps = each.train.steps or _counted_steps(each, run, number)
        if steps is None:
            return None
        done += steps
        ends.append(done)
    return ends


def _counted_steps(recipe: Recipe, run: RunDir, number: int) -> int | None:
    """Steps of a phase in epochs, by the features of a run of this kind."""
    theirs = run.recipe
    counted = read_json(run.features / theirs.features_folder(number) / "train" / "complete.json")
    same_rows = theirs.phase(number).data.train == recipe.data.train
    if counted is None or "tokens" not in counted or not same_rows or recipe.train.epochs is None:
        return None
    return recipe.train.total_steps(counted["rows"], counted["tokens"], counted["longest"])


def _began(job: JobDir) -> int:
    return int((job.resumed or {"step": 0})["step"])


def _steps_done(job: JobDir, ended: Mapping[str, Any]) -> int:
    """Steps that a job has done and timed, kept or not."""
    return max(0, int(ended.get("last_step", 0)) - _began(job)) if "seconds" in ended else 0
