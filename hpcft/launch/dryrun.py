"""`hpcft submit --dry-run`: the exact script, and what the run will take."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hpcft.errors import UserError
from hpcft.launch import slurm
from hpcft.launch.card import card_estimate, card_lines, least_bytes
from hpcft.launch.forecast import Forecast, forecast
from hpcft.launch.hub import is_hub_id
from hpcft.launch.plan import Plan
from hpcft.launch.room import disk, gibibytes, gigabytes, millions
from hpcft.launch.slurm_start import Start, estimated_start
from hpcft.launch.submission import Submission
from hpcft.launch.words import count, duration
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.schema import clock, walltime_seconds

UNKNOWN = "unknown until the first job has run"


def print_plan(plan: Plan) -> None:
    """The exact script of the first job, and the plan; nothing is made on disk.

    Raises UserError where Slurm says that it would refuse the script, or the card is too small.
    """
    run = RunDir(plan.root / free_name(plan))
    submission = plan.submission(run, 1, ())
    text = batch_script(plan, submission)
    start = estimated_start(text) if plan.cluster.kind == "slurm" else None
    print(text)
    print("# plan")
    for key, value in (*_what(plan, run), *_takes(plan), *_start(start)):
        print(f"# {key:12} {value}")
    if start and start.refusal:
        raise UserError(slurm.refused(submission, start.refusal))
    if plan.overfull:
        raise UserError(plan.overfull)


def batch_script(plan: Plan, submission: Submission) -> str:
    """The exact text that sbatch gets, or the like of it for this machine."""
    if plan.cluster.kind == "slurm":
        return slurm.script(submission)
    command = shlex.join([str(submission.python), "-u", "-m", "submitit.core._submit", str(submission.folder)])
    return "\n".join(["#!/bin/bash", *submission.setup, f"exec {command}"])


def free_name(plan: Plan) -> str:
    """The name that a run would get now."""
    name, number = plan.recipe.name, 1
    while (plan.root / name).exists():
        number += 1
        name = f"{plan.recipe.name}-{number}"
    return name


def outlook(plan: Plan) -> str:
    """One line of what a run will take."""
    found = forecast(plan)
    if found is None:
        return f"jobs needed: {UNKNOWN}"
    if found.jobs is None:
        return f"jobs needed: {_jobs(found, plan)}"
    hours = f", {found.gpu_hours:.1f} GPU-hours" if plan.recipe.resources.gpus else ""
    limit = plan.recipe.resources.jobs
    over = f"; resources.jobs = {limit} ends the chain before" if found.jobs > limit else ""
    return f"jobs needed: {found.jobs}, {duration(found.seconds)} of jobs{hours}, as {found.measured.run} went{over}"


def _what(plan: Plan, run: RunDir) -> Iterator[tuple[str, object]]:
    recipe, resources = plan.recipe, plan.recipe.resources
    chain = f"{count(plan.queued, 'job')} at first, {resources.jobs} at most"
    if plan.cluster.jobs_may_submit:
        chain += "; each queues the next"
    yield "run", run.path
    yield "cluster", plan.cluster.name
    yield "env", plan.env.prefix
    yield "model", f"{recipe.model.path} (hub id)" if is_hub_id(recipe.model) else recipe.model.path
    if recipe.phases and recipe.steps:
        yield "length", f"{count(recipe.steps, 'step')} in {count(len(recipe.phases), 'phase')}"
    for number, each in enumerate(recipe.each_phase()):
        name = recipe.phase_name(number)
        yield ("phase" if name else "length"), f"{name}: {_length(each)}" if name else _length(each)
    nodes = f"{count(resources.nodes, 'node')}, each with " if resources.nodes > 1 else ""
    asked = walltime_seconds(resources.walltime) if resources.walltime else plan.walltime
    rounded = "" if asked == plan.walltime else f" (Slurm counts whole minutes; the recipe says {resources.walltime})"
    yield "job", f"{clock(plan.walltime)}{rounded}, {nodes}{count(resources.gpus, 'GPU')}"
    yield "chain", chain


def _length(recipe: Recipe) -> str:
    """`100 steps, 8 rows a step (micro_batch_size 2 x 1 process x 4 micro-batches)`; of a phase, its loss and rate."""
    train = recipe.train
    steps = count(train.steps, "step") if train.steps else f"{train.epochs:g} epochs"
    micro, processes = train.micro_batch_size, count(recipe.processes, "process")
    share = f"micro_batch_size {micro} x {processes}"
    if micro != "auto" and train.batch_size:
        share += f" x {count(train.batch_size // (micro * recipe.processes), 'micro-batch')}"
    rows = count(train.batch_size, "row") if train.batch_size else f"about {train.batch_tokens} tokens"
    return f"{steps}, {rows} a step ({share})"


def _takes(plan: Plan) -> Iterator[tuple[str, str]]:
    """Jobs, time, disk and memory."""
    found, resources = forecast(plan), plan.recipe.resources
    yield "jobs needed", _jobs(found, plan)
    if found and found.jobs is not None:
        yield "job time", f"{duration(found.seconds)} without queue waits, {found.useful:.0%} of it trains"
    if resources.gpus:
        yield "GPU-hours", f"{found.gpu_hours:.1f}" if found and found.jobs is not None else UNKNOWN
    yield "disk", _disk(plan)
    if resources.gpus:
        yield from zip(("GPU memory", *[""] * 9), _memory(plan), strict=False)


def _jobs(found: Forecast | None, plan: Plan) -> str:
    if found is None:
        return UNKNOWN
    took = found.measured
    per = f"{took.step:.3g} s a step, {duration(took.start)} to start and {duration(took.save)} to save"
    source = f"as measured in {count(took.jobs, 'job')} of {took.run}"
    if found.jobs is None:
        return f"no number is enough: {per} leave no time in {duration(plan.walltime)} ({source})"
    limit = plan.recipe.resources.jobs
    over = f"; resources.jobs = {limit} ends the chain before" if found.jobs > limit else ""
    return f"{found.jobs}, from {per}, {source}{over}"


def _disk(plan: Plan) -> str:
    purge = plan.cluster.purge_days
    note = f"; {plan.cluster.name} deletes files that nobody touched for {count(purge, 'day')}" if purge else ""
    if plan.parameters is None:
        return f"unknown: no safetensors file here tells the model's size{note}"
    need = disk(plan.recipe, plan.cluster, plan.root, plan.parameters, plan.trained)
    text = f"{gigabytes(need.needed)} for {need.words}; {gigabytes(need.free)} are free"
    quota = f", the quota of {plan.cluster.name} is {gigabytes(need.quota)}" if need.quota is not None else ""
    return f"{text}{quota}{note}"


def _memory(plan: Plan) -> Iterator[str]:
    found = card_estimate(plan.recipe, plan.cluster, plan.env)
    if not isinstance(found, str):
        yield from card_lines(plan.recipe, plan.cluster, found)
    elif plan.parameters is None:
        yield f"unknown: {found}"
    else:
        card = f" of {plan.cluster.gpu_memory:g}" if plan.cluster.gpu_memory else ""
        least = gibibytes(least_bytes(plan.recipe, plan.parameters))
        yield f"at least {least}{card} a card for {millions(plan.parameters)} parameters; activations come on top"
        yield f"({found})"


def _start(start: Start | None) -> Iterator[tuple[str, str]]:
    if start is not None:
        yield "start", f"sbatch refuses it: {start.refusal}" if start.refusal else start.words
