"""What a person sees of runs: tables, a live line while one waits, and the last words of a finished run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from hpcft.launch.chain import run_cluster
from hpcft.launch.status import JobStatus, RunStatus, ask, read_status
from hpcft.launch.words import duration
from hpcft.rundir import RunDir, read_json

PIPED_WIDTH = 160
"""Columns of a table that no terminal limits: 80 would cut names that a script looks for."""
NOTE_LENGTH = 300
"""Characters of a note at most; the rest of what a job said stands in its log."""
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
STATE_COLOURS = {
    "finished": "green",
    "running": "cyan",
    "queued": "yellow",
    **dict.fromkeys(("halted", "half-submitted", "broken off", "unknown"), "red"),
}
QUIET_INTERVAL = 5.0
"""Seconds between two plain lines where there is no terminal."""
ASK_INTERVAL = {"slurm": 30.0, "local": 0.0}
"""Seconds between two questions to the scheduler while one waits; files are read in between."""


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


def print_runs(runs: Sequence[RunStatus]) -> None:
    """A row a run, and below it what is to be done about those that need it."""
    table = Table("run", "state", "step", "loss", "validation", "saved", "jobs", "time left")
    for run in runs:
        colour = STATE_COLOURS.get(run.state, "")
        state = f"[{colour}]{run.state}[/]" if colour else run.state
        steps = f"{run.step}/{run.total_steps or '?'}"
        jobs = str(len({job.number for job in run.jobs if began(job)}))
        saved = "-" if run.saved_step is None else str(run.saved_step)
        left = duration(run.eta_seconds)
        table.add_row(run.name, state, steps, _number(run.loss), _number(run.validation_loss), saved, jobs, left)
    console.print(table)
    for run in runs:
        if run.note:
            console.print(f"{run.name}: {_note(run.note)}", markup=False, highlight=False, soft_wrap=True)


def began(job: JobStatus) -> bool:
    """Whether the job ever ran; one that waits, or was cancelled while it did, never began."""
    return job.wall_seconds is not None or job.state == "RUNNING"


def print_jobs(run: RunStatus) -> None:
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
    console.print(table)
    for job in run.jobs:
        if job.why:
            why = f"job {job.number} {job.ending}: {_note(job.why)}"
            console.print(why, markup=False, highlight=False, soft_wrap=True)


def _overhead(job: JobStatus) -> str:
    return "-" if job.wall_seconds is None else f"{max(0.0, job.wall_seconds - job.useful_seconds):.1f}"


def print_evaluation(run: RunDir) -> None:
    """Accuracy before and after, beside what always answering the commonest would give."""
    before, after = read_json(run.evaluation / "before.json"), read_json(run.evaluation / "after.json")
    if not after:
        return
    first = f"{before['accuracy']:.1%} before, " if before else ""
    console.print(
        f"accuracy on {after['rows']} held-out rows: {first}[bold]{after['accuracy']:.1%} after[/] "
        f"(the commonest answer alone: {after['majority']:.1%})",
        highlight=False,
    )


def follow(run: RunDir) -> RunStatus:
    """The status at the end of the run, which is shown while it goes on.

    On a terminal a live line, elsewhere a plain line every few seconds. KeyboardInterrupt leaves the run going.
    """
    interval = ASK_INTERVAL[run_cluster(run).kind]
    if sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(run.name, total=run.total_steps() or 1, words="")

            def show(status: RunStatus) -> None:
                total = status.total_steps or 1
                bar.update(task, completed=status.step, total=total, words=live_words(status))

            return _follow(run, interval, 0.5, show)
    lines: set[str] = set()

    def say(status: RunStatus) -> None:
        line = f"{status.name}: step {status.step}/{status.total_steps or '?'} {live_words(status)}"
        if line not in lines:
            lines.clear()
            lines.add(line)
            print(line, flush=True)

    return _follow(run, interval, QUIET_INTERVAL, say)


def live_words(status: RunStatus) -> str:
    """`job 2 train  loss 2.3107  612 tokens/s  0:48 left`: the running job in a line."""
    job = next((job for job in reversed(status.jobs) if job.state == "RUNNING"), None)
    if job is None:
        return f"{status.state} {status.note}".strip()
    words = [f"job {job.number}", status.phase or "starting"]
    if status.loss is not None:
        words.append(f"loss {status.loss:.4f}")
    if status.tokens_per_second:
        words.append(f"{status.tokens_per_second:.0f} tokens/s")
    if status.eta_seconds is not None:
        words.append(f"{duration(status.eta_seconds)} left")
    if status.heartbeat_age and status.heartbeat_age > 60:
        words.append(f"silent for {duration(status.heartbeat_age)}")
    return "  ".join(words)


def _follow(run: RunDir, interval: float, pause: float, show: Callable[[RunStatus], None]) -> RunStatus:
    """Read the run's files every `pause` seconds, and ask the scheduler every `interval`."""
    while True:
        asked, answer = time.monotonic(), ask([run])
        while True:
            status = read_status([run], answer)[0]
            over = status.state not in ("running", "queued", "unknown")
            stale = time.monotonic() - asked >= interval
            if not over:
                show(status)
            elif time.monotonic() - asked < pause or run.finished or run.halted:
                return status
            if stale or over:
                break  # an end is believed only when the scheduler has just been asked
            time.sleep(pause)
        time.sleep(pause)
