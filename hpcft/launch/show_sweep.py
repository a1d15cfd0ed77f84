"""What a person sees of a matrix: its runs before they are submitted, and what has become of each submit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hpcft.launch.dryrun import UNKNOWN, free_name
from hpcft.launch.forecast import forecast
from hpcft.launch.plan import Plan
from hpcft.launch.room import disk, gigabytes
from hpcft.launch.show import console
from hpcft.launch.sweep import Submitted
from hpcft.launch.words import count, duration
from hpcft.schema import clock


def print_plans(plans: Sequence[Plan]) -> None:
    """A row a run: what it sets, and what it will take; with the sums below. Nothing is made on disk."""
    keys = differing(plans)
    found = [forecast(plan) for plan in plans]
    hours = [one.gpu_hours if one and one.jobs is not None else None for one in found]
    disks = [_disk(plan) for plan in plans]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("run", *keys, "job"):
        table.add_column(heading, overflow="fold")
    for heading in ("jobs", "job time", "GPU-hours", "disk"):
        table.add_column(heading, justify="right", no_wrap=True)
    for plan, one, spent, size in zip(plans, found, hours, disks, strict=True):
        resources = plan.recipe.resources
        job = f"{clock(plan.walltime)}, {count(resources.gpus * resources.nodes, 'GPU')}"
        jobs = "?" if one is None or one.jobs is None else str(one.jobs)
        time = duration(one.seconds) if one and one.jobs is not None else "?"
        cells = [free_name(plan), *(_shown(setting(plan, key)) for key in keys), job, jobs, time]
        gpu = "-" if not resources.gpus else _known(spent, "{:.1f}".format)
        table.add_row(*map(Text, (*cells, gpu, _known(size, gigabytes))))
    console.print(table)
    print(f"\n{count(len(plans), 'run')} in {plans[0].root}, cluster {plans[0].cluster.name}")
    if any(plan.recipe.resources.gpus for plan in plans):
        print(f"GPU-hours  {total(hours, '{:.1f}'.format)}")
    print(f"disk       {total(disks, gigabytes)}")
    print(f"`--set matrix={_label(plans[0])}` shows the script and the plan of one.")


def print_outlook(plans: Sequence[Plan]) -> None:
    """One line of what all of them will take."""
    found = [forecast(plan) for plan in plans]
    hours = [one.gpu_hours if one and one.jobs is not None else None for one in found]
    if any(plan.recipe.resources.gpus for plan in plans):
        print(f"GPU-hours of {count(len(plans), 'run')}: {total(hours, '{:.1f}'.format)}")


def print_submitted(submitted: Submitted, recipe: Path) -> None:
    """A line a run: its jobs, or that it waits; and what a killed submit had left."""
    for run in submitted.left:
        print(f"run {run.name}: goes on, of a submit that was killed and whose recipes were others")
    for placed in submitted.runs:
        jobs = [job for job in placed.run.jobs() if job.submitted and not job.ended]
        ids = ", ".join(f"{job.number} ({job.slurm_id})" for job in jobs)
        what = "waits until another run of the matrix ends" if placed.run.waits else f"jobs {ids} queued"
        before = "was there already, of a submit that was killed; " if placed.before else ""
        print(f"run {placed.run.name}: {before}{what}")
    if submitted.refusal:
        print(f"No more could be queued: {submitted.refusal}")
    if waiting := [placed.run.name for placed in submitted.runs if placed.run.waits]:
        what = f"{count(len(waiting), 'run')} will be queued one by one"
        print(f"{what}; `hpcft resume {waiting[0]}` does not wait.")
    print(f"`hpcft status` shows them, `hpcft compare {recipe}` compares them.", flush=True)


def differing(plans: Sequence[Plan]) -> list[str]:
    """The dotted keys that the matrix sets, in its order."""
    cells = [plan.file.cell for plan in plans if plan.file.cell]
    return list(dict.fromkeys(key for cell in cells for key in cell.settings))


def setting(plan: Plan, key: str) -> Any:
    """What the recipe of a run has under a dotted key, whether its own cell sets it or another's."""
    value: Any = plan.recipe.model_dump(mode="json")
    if plan.file.cell and key in plan.file.cell.settings:
        return plan.file.cell.settings[key]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def total(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """The sum of those that are known, and of how many runs it is not."""
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    lacking = len(values) - len(known)
    return shown(sum(known)) + (f", and what {count(lacking, 'run')} will take is unknown" if lacking else "")


def _disk(plan: Plan) -> int | None:
    if plan.parameters is None:
        return None
    return disk(plan.recipe, plan.cluster, plan.root, plan.parameters, plan.trained).needed


def _known(value: float | None, shown: Callable[[float], str]) -> str:
    return "?" if value is None else shown(value)


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _label(plan: Plan) -> str:
    return plan.file.cell.label if plan.file.cell else plan.recipe.name
