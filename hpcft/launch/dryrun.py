"""`hpcft submit --dry-run`: the exact script, and what the run will take."""

from __future__ import annotations

import shlex
from pathlib import Path

from hpcft.launch import slurm
from hpcft.launch.plan import Plan
from hpcft.launch.words import count, duration
from hpcft.rundir import RunDir


def print_plan(plan: Plan, root: Path) -> None:
    """The exact script of the first job, and the plan; nothing is made on disk."""
    run = RunDir(root / plan.recipe.name)
    first = plan.submission(run, 1, ())
    if plan.cluster.kind == "slurm":
        print(slurm.script(first))
    else:
        command = shlex.join([str(first.python), "-u", "-m", "submitit.core._submit", str(first.folder)])
        print("\n".join(["#!/bin/bash", *first.setup, f"exec {command}"]))
    recipe, resources = plan.recipe, plan.recipe.resources
    model = recipe.model.path if recipe.model.path.startswith("/") else f"{recipe.model.path} (hub id)"
    steps = count(recipe.train.steps, "step") if recipe.train.steps else f"{recipe.train.epochs:g} epochs"
    micro = f"micro_batch_size {recipe.train.micro_batch_size}"
    share = f"{micro} x {count(recipe.processes, 'process')} x {count(recipe.accumulation, 'micro-batch')}"
    chain = f"{count(plan.queued, 'job')} at first, {resources.jobs} at most"
    if plan.cluster.jobs_may_submit:
        chain += "; each queues the next"
    print("# plan")
    for key, value in (
        ("run", f"{run.path}, with a number behind it if that is taken"),
        ("cluster", plan.cluster.name),
        ("env", plan.env.prefix),
        ("model", model),
        ("length", f"{steps} of {count(recipe.train.batch_size, 'row')} ({share})"),
        ("job", f"{duration(plan.walltime)}, {count(resources.gpus, 'GPU')}"),
        ("chain", chain),
        ("jobs needed", "unknown until the first job has run"),
    ):
        print(f"# {key:12} {value}")
