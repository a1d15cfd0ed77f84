"""What a person sees of runs: tables, a live line while one waits, and the last words of a finished run."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpcft.disk import read_json
from hpcft.launch.jobstatus import JobStatus
from hpcft.launch.status import RunStatus
from hpcft.launch.words import count, duration, tracker_words
from hpcft.rundir import RunDir

PIPED_WIDTH = 160
"""Columns of a table that no terminal limits: 80 would cut names that a script looks for."""
NOTE_LENGTH = 300
"""Characters of a note at most; the rest of what a job said stands in its log."""
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
STATE_COLOURS = {
    "finished": "green",
    "running": "cyan",
    "queued": "yellow",
    "waiting": "yellow",
    **dict.fromkeys(("halted", "half-submitted", "broken off", "unknown"), "red"),
}


COLUMNS: tuple[tuple[str, Literal["left", "right"], int | None], ...] = (
    ("run", "left", None),
    ("state", "left", None),
    ("queue", "left", 14),
    ("run says", "left", 9),
    ("step", "right", None),
    ("loss", "right", None),
    ("tok/s", "right", None),
    ("saved", "right", None),
    ("GPU h", "right", None),
    ("left", "right", None),
)
"""Of the table of runs: heading, side, and the least width of those that may be folded."""
LEFT_OUT = ("tok/s", "GPU h", "run says", "loss", "queue")
"""One after the other where the terminal is too narrow for all; `hpcft status RUN` still says them."""


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _note(text: str) -> str:
    """The text in one line of at most NOTE_LENGTH characters."""
    line = " ".join(text.split())
    return line if len(line) <= NOTE_LENGTH else line[: NOTE_LENGTH - 1] + "…"


def print_submitted(run: RunDir) -> None:
    """What was queued, and what to type next."""
    waiting = [job for job in run.jobs() if job.submitted and not job.ended]
    ids = ", ".join(f"{job.number} ({job.slurm_id})" for job in waiting)
    print(f"run {run.name}: jobs {ids} queued in {run.path}")
    print(f"`hpcft status {run.name}` shows it, `hpcft logs -f {run.name}` follows it.", flush=True)


def runs_table(runs: Sequence[RunStatus]) -> Table:
    """A row a run: what follows, what the scheduler says, and what the run's own files say."""
    rows = [_cells(run) for run in runs]
    shown = list(COLUMNS)
    for heading in LEFT_OUT:
        if _least_width(shown, rows) > console.width:
            shown = [column for column in shown if column[0] != heading]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, collapse_padding=True)
    for heading, justify, least in shown:
        # Words give way before numbers do: a cut number would be another one.
        table.add_column(heading, justify=justify, min_width=least, no_wrap=not least, overflow="fold")
    for run, cells in zip(runs, rows, strict=True):
        colour = STATE_COLOURS.get(run.state, "")
        # As Text, so that a bracket in Slurm's words is no markup, and 200 rows cost half as much.
        table.add_row(*(Text(cells[heading], colour if heading == "state" else "") for heading, _, _ in shown))
    return table


def _cells(run: RunStatus) -> dict[str, str]:
    return {
        "run": run.name,
        "state": run.state,
        "queue": run.queue,
        "run says": run.says,
        "step": f"{run.step}/{run.total_steps or '?'}",
        "loss": _number(run.loss),
        "tok/s": _number(run.tokens_per_second, 0),
        "saved": duration(run.saved_age),
        "GPU h": _gpu_hours(run),
        "left": duration(run.eta_seconds if run.eta_with_waits is None else run.eta_with_waits),
    }


def _least_width(shown: Sequence[tuple[str, str, int | None]], rows: Sequence[dict[str, str]]) -> int:
    """Characters that these columns need, folded as far as they may be."""
    widths = [least or max(len(cells[heading]) for cells in (*rows, {heading: heading})) for heading, _, least in shown]
    return sum(widths) + 2 * (len(widths) - 1)


def _gpu_hours(run: RunStatus) -> str:
    """`1.5+3.0`: used and left; a dash where a run uses no GPU."""
    if not run.gpu_hours_used and not run.gpu_hours_left:
        return "-"
    used, left = (f"{hours:.{hours < 100:d}f}" for hours in (run.gpu_hours_used, run.gpu_hours_left or 0.0))
    return used if run.state == "finished" else f"{used}+{'?' if run.gpu_hours_left is None else left}"


def print_runs(runs: Sequence[RunStatus]) -> None:
    """A row a run, and below it what is to be done about those that need it."""
    console.print(runs_table(runs))
    for line in notes(runs):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def notes(runs: Sequence[RunStatus]) -> list[str]:
    """What is to be done about the runs that need it."""
    said = [(run.name, note) for run in runs for note in (run.note, run.save_fault) if note and run.state != "queued"]
    return [f"{name}: {_note(note)}" for name, note in said]


def details(run: RunStatus) -> list[str]:
    """Lines on one run that the table has no room for."""
    lines = [f"{run.name}  {run.dir}, cluster {run.cluster}"]
    beat = "" if run.heartbeat_age is None else f", {duration(run.heartbeat_age)} since its last sign of life"
    lines.append(f"  queue      {run.queue}")
    lines.append(f"  run says   {run.says}{beat}")
    for number, phase in enumerate(run.phases, 1):
        now = ", over" if phase["over"] else ", now" if phase["name"] == run.recipe_phase else ""
        steps = f"steps {phase['begins'] + 1} to {phase['ends']}"
        lines.append(f"  phase      {number} of {len(run.phases)}, {phase['name']}: {steps}{now}")
    if run.validation_loss is not None:
        words = f"{_number(run.loss)} in training, {_number(run.validation_loss)} in validation"
        accuracy, perplexity = run.validation_accuracy, math.exp(min(run.validation_loss, 700))
        more = f"perplexity {perplexity:.4g}" if accuracy is None else f"accuracy {accuracy:.1%} there"
        lines.append(f"  loss       {words}, {more}")
    if run.tokens_per_second is not None:
        lines.append(f"  speed      {_speed(run)}")
    if run.saved_step is not None:
        lines.append(f"  saved      step {run.saved_step}, {duration(run.saved_age)} ago")
    if run.save_fault is not None:
        lines.append(f"  save fault {run.save_fault}")
    lines += [f"  tracker    {tracker_words(tracker)}" for tracker in run.trackers]
    if started := next((job for job in reversed(run.jobs) if job.start), None):
        lines.append(f"  start      job {started.number}: {start_words(started.start)}")
    if run.gpu_hours_used or run.gpu_hours_left:
        unknown = run.gpu_hours_left is None
        left = ", what is left is unknown" if unknown else f", {run.gpu_hours_left:.1f} left at this pace"
        lines.append(f"  GPU hours  {run.gpu_hours_used:.1f} used{'' if run.state == 'finished' else left}")
    if run.state in ("running", "queued"):
        lines.append(f"  left       {_left(run)}")
    return lines


def start_words(phases: Mapping[str, float]) -> str:
    """`9.3 s to the end of the first step: imports 4.1, model 3.0, first step 1.2, launch 0.6, data 0.4`."""
    parts = sorted(phases.items(), key=lambda phase: -phase[1])
    words = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts if seconds >= 0.05)
    end = " to the end of the first step" if "first step" in phases else " so far"
    return f"{sum(phases.values()):.1f} s{end}: {words}"


def _speed(run: RunStatus) -> str:
    """`5658 tokens/s, 885 of them trained, 14.4% padding, MFU 31.0%, at most 12.3 GB on a card`, as far as known."""
    words = [f"{_number(run.tokens_per_second, 0)} tokens/s"]
    if run.trained_tokens_per_second is not None:
        words.append(f"{run.trained_tokens_per_second:.0f} of them trained")
    if run.padding_share is not None:
        words.append(f"{run.padding_share:.1%} padding")
    if run.mfu is not None:
        words.append(f"MFU {run.mfu:.1%}")
    if run.gpu_memory_peak is not None:
        words.append(f"at most {run.gpu_memory_peak:.1f} GB on a card")
    return ", ".join(words)


def _left(run: RunStatus) -> str:
    """How the time left is made up, and what of it is only what past jobs took."""
    if run.eta_seconds is None:
        return "unknown until a job has trained"
    words = f"{duration(run.eta_seconds)} of job time"
    if not run.eta_jobs:
        return f"{words}; no further job will be needed"
    more = count(run.eta_jobs, "more job")
    if (short := run.eta_jobs - run.jobs_granted) > 0:
        grants = f"resources.jobs grants {run.jobs_granted or 'none'}"
        more += f" ({grants}{' of them' if run.jobs_granted else ''}: `hpcft extend {run.name} {short}`)"
    if run.eta_waits is None:
        return f"{words}, and the queue waits of {more}, unknown so far"
    waited = f"{count(len(run.queue_waits), 'job')} of this run waited {duration(_mean(run.queue_waits))} on average"
    return f"{words}, and {duration(run.eta_waits)} in the queue for {more}, if it goes on so: {waited}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def print_details(run: RunStatus) -> None:
    """One run in some lines."""
    for line in details(run):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_line(name: str, words: Text) -> None:
    """One more line of them, whose colours are its own."""
    console.print(Text(f"  {name:10} ").append_text(words), soft_wrap=True)


def began(job: JobStatus) -> bool:
    """Whether the job ever ran; one that waits, or was cancelled while it did, never began."""
    return job.wall_seconds is not None or job.state == "RUNNING"


def jobs_table(run: RunStatus) -> Table:
    """A row a job: the steps it kept, where its seconds went, how it ended."""
    table = Table("job", "id", "ending", "steps kept", "loss", "useful s", "overhead s", "node")
    for job in run.jobs:
        if job.ending == "cancelled" and not began(job):
            continue
        kept = f"{job.first_step}-{job.last_step} ({job.kept_steps})" if job.kept_steps else "-"
        ending = job.ending or (job.state or "?").lower()
        table.add_row(
            f"{job.number}" if job.attempt == 1 else f"{job.number}.{job.attempt}",
            job.slurm_id or "-",
            ending,
            kept,
            _number(job.loss),
            f"{job.useful_seconds:.1f}",
            _overhead(job),
            job.node or "-",
        )
    return table


def print_jobs(run: RunStatus) -> None:
    """The table of jobs, and below it why those ended that did not end well."""
    if not any(began(job) or job.ending is None for job in run.jobs):
        return
    console.print(jobs_table(run))
    for job in run.jobs:
        if job.why:
            why = f"job {job.number} {job.ending}: {_note(job.why)}"
            console.print(why, markup=False, highlight=False, soft_wrap=True)


def _overhead(job: JobStatus) -> str:
    return "-" if job.wall_seconds is None else f"{max(0.0, job.wall_seconds - job.useful_seconds):.1f}"


def print_evaluation(run: RunDir) -> None:
    """What the held-out rows say of the model, before and after: accuracy, or the loss of a token."""
    before, after = read_json(run.evaluation / "before.json"), read_json(run.evaluation / "after.json")
    if not after:
        return
    stages = [(f"after phase {phase.name}", f"{phase.name}.json") for phase in run.recipe.phases[:-1]]
    between = [(name, report) for name, file in stages if (report := read_json(run.evaluation / file))]
    for line in after_and_before(after, [("before", before), *between] if before else between):
        console.print(line, highlight=False, soft_wrap=True)


def print_report(report: Mapping[str, Any], path: Path) -> None:
    """What `hpcft evaluate` has found, label by label, and where the rest of it lies."""
    lines = after_and_before(report)
    console.print("\n".join(lines).replace(" after[/]", "[/]"), highlight=False, soft_wrap=True)
    if "per_class" in report:
        table = Table(box=None, pad_edge=False)
        for column in ("label", "rows", "answered", "precision", "recall", "F1"):
            table.add_column(column, justify="left" if column == "label" else "right")
        for part in report["per_class"]:
            shares = (f"{part[key]:.1%}" for key in ("precision", "recall"))
            table.add_row(Text(part["label"]), str(part["rows"]), str(part["answered"]), *shares, f"{part['f1']:.3f}")
        console.print(table)
    beside = [path.with_suffix(ending) for ending in (".json", ".parquet", ".png")]
    names = ", ".join(each.name for each in beside if each.exists())
    console.print(f"{path.parent}: {names}", highlight=False, soft_wrap=True)


def after_and_before(report: Mapping[str, Any], earlier: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> list[str]:
    """A report on held-out rows in words, beside those of earlier models and the commonest answer alone."""
    rows = f"{report['rows']} held-out rows"
    if "accuracy" not in report:
        first = "".join(f"{each['perplexity']:.2f} {when}, " for when, each in earlier)
        return [f"perplexity on {rows}: {first}[bold]{report['perplexity']:.2f} after[/] (loss {report['loss']:.4f})"]
    low, high = report["interval"]
    first = "".join(f"{each['accuracy']:.1%} {when}, " for when, each in earlier)
    lines = [
        f"accuracy on {rows}: {first}[bold]{report['accuracy']:.1%} after[/], {low:.1%} to {high:.1%} "
        f"in 95 of 100 resamples (the commonest answer alone: {report['majority']:.1%})"
    ]
    more = [f"macro-F1 {report['macro_f1']:.3f}"]
    if "calibration" in report:
        more.append(f"calibration error {report['calibration']['error']:.3f}")
    if "generate" in report:
        more.append(f"no label in {report['unparsed']:.1%} of the answers")
    if "exchanged" in report:
        more.append(f"verdict exchanged with the responses in {report['exchanged']:.1%}")
    if over := report.get("over_untuned"):
        low, high = over["interval"]
        more.append(f"{over['gain']:+.1%} over the untuned model ({low:+.1%} to {high:+.1%})")
    return [*lines, "  " + ", ".join(more)]
