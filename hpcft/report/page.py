"""The report itself: one page with everything in it, that can be sent to somebody."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from hpcft import __version__
from hpcft.curves.judgement import judge_run
from hpcft.curves.page import curves_data, write_page
from hpcft.curves.runcurves import TRAIN, VALIDATION, RunCurves
from hpcft.disk import read_json
from hpcft.launch.status import RunStatus
from hpcft.launch.words import clock, count, duration
from hpcft.recipe import for_others
from hpcft.report.account import Account, account
from hpcft.report.elements import section, short_paths, text, tile
from hpcft.report.papers import data_section, env_section, evaluation_section, recipe_section, reports
from hpcft.report.work import jobs_section, time_section
from hpcft.rundir import RunDir

STYLE = Path(__file__).parent / "report.css"


def write_report(run: RunDir, status: RunStatus, curves: RunCurves, out: Path) -> None:
    """Writes the report of a run to `out`, whole or not at all, and makes its folder. Raises OSError if it cannot.

    It names no paths, no user and no address that is told of the run's end; `hpcft show` has those.
    """
    spent = account(status.jobs, curves)
    devices = _devices(run)
    try:
        data = curves_data([curves])
        figure = section("curves", "Curves", '<div id="figure"></div>')
    except ValueError:  # no job has logged a loss yet
        data, figure = None, ""
    parts = [
        figure,
        time_section(spent),
        jobs_section(status.jobs, curves, devices, spent),
        evaluation_section(run),
        data_section(run),
        recipe_section(run),
        env_section(run, devices),
    ]
    body = "".join([_head(run, status, curves, spent), *parts, _foot(run)])
    write_page(out, f"{run.name}: report", body, data, STYLE.read_text(encoding="utf-8"))


def _head(run: RunDir, status: RunStatus, curves: RunCurves, spent: Account) -> str:
    recipe = run.recipe
    adapted = " with LoRA" if recipe.lora else ""
    what = f"{text(for_others(recipe.model.path))}{adapted} on the task <b>{recipe.task}</b>"
    note = f'<p class="note">{text(short_paths(status.note))}</p>' if status.note else ""
    steps = f"{status.step:,} of {status.total_steps:,} steps" if status.total_steps else ""
    return (
        f'<header><p class="kicker">report of a training run, {text(clock(time.time()))}</p>\n'
        f'<h1>{text(run.name)} <span class="state {text(status.state.split()[0])}">{text(status.state)}</span></h1>\n'
        f'<p class="lead">{what}{f", {steps}" if steps else ""}</p>{note}\n'
        f'<p class="verdict">{text(_sentence(judge_run(curves)))}</p>\n'
        f'<div class="tiles">{"".join(_tiles(run, status, curves, spent))}</div></header>\n'
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _tiles(run: RunDir, status: RunStatus, curves: RunCurves, spent: Account) -> Sequence[str]:
    """What is asked first: how good it is, what it took."""
    found = []
    tested = reports(run)
    if (after := tested.get("after")) and "accuracy" in after:
        low, high = after["interval"]
        before = f"{tested['before']['accuracy']:.1%} before, " if "accuracy" in tested.get("before", {}) else ""
        found.append(tile("accuracy", f"{after['accuracy']:.1%}", f"{before}{low:.1%} to {high:.1%}"))
    elif after and "perplexity" in after:
        before = f"{tested['before']['perplexity']:.2f} before" if "perplexity" in tested.get("before", {}) else ""
        found.append(tile("perplexity", f"{after['perplexity']:.2f}", before))
    validation, train = curves.stitched.curve(VALIDATION), curves.stitched.curve(TRAIN)
    if len(validation):
        last = float(validation.values[-1])
        best = f"best on disk {curves.best.loss:.4f}, step {curves.best.step:,}" if curves.best else ""
        found.append(tile("validation loss", f"{last:.4f}" if math.isfinite(last) else "no number", best))
    if len(train):
        tail = train[train.steps > train.steps[-1] * 0.9]
        found.append(tile("training loss", f"{float(tail.values.mean()):.4f}", "mean of the last tenth of the steps"))
    began = [job for job in status.jobs if job.wall_seconds is not None]
    useful = spent.parts["computing"] / spent.total if spent.total else 0.0
    took = f"{spent.total / 3600:.1f} h" if spent.total >= 3600 else duration(spent.total)
    name = "GPU time" if spent.on_cards else "time in jobs"
    found.append(tile(name, took, f"{useful:.0%} of it in useful steps"))
    waits = [job.wait_seconds for job in began if job.wait_seconds is not None]
    submitted = (run.submission or {}).get("time")
    ends = max((place.begins + place.hours * 3600 for place in curves.places.values()), default=None)
    if submitted and ends:
        queued = f"{duration(sum(waits))} of it in the queue" if waits else ""
        name = "from submission to end" if run.finished else "since the submission"
        found.append(tile(name, duration(max(0.0, ends - submitted)), queued))
    found.append(tile("jobs", str(len(began)), count(len({job.node for job in began}), "node") if began else ""))
    return found


def _devices(run: RunDir) -> dict[tuple[int, int], str]:
    """What each job computed on, by number and attempt: as it said itself, else as its newest checkpoint does."""
    found = {}
    for job in run.jobs():
        device = (job.resumed or {}).get("device")
        if device:
            gpus = int((job.submitted or {}).get("gpus") or 0)
            found[job.number, job.attempt] = f"{gpus} × {device}" if gpus > 1 else str(device)
    if not found:
        for step in reversed(run.saved_steps()):
            state = read_json(run.checkpoints / f"step-{step:08d}" / "state.json") or {}
            if device := state.get("fingerprint", {}).get("device"):
                last = [job for job in run.jobs() if job.resumed and job.resumed["step"] < step][-1:]
                return {(job.number, job.attempt): str(device) for job in last}
    return found


def _foot(run: RunDir) -> str:
    name = text(run.name)
    return (
        f"<footer><p>Made by hpcft {text(__version__)} of the records of the run. Paths and users are left out; "
        f"<code>hpcft show {name}</code> has them. Times are of this zone: {time.strftime('%Z')}.</p></footer>\n"
    )
