"""Runs as they go on: one live line for `--wait`, the whole table for `status --watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from hpcft.launch.facts import read_facts
from hpcft.launch.show import console, details, jobs_table, notes, print_runs, runs_table
from hpcft.launch.status import RunStatus, ask, read_status
from hpcft.launch.words import duration
from hpcft.rundir import RunDir

QUIET_INTERVAL = 5.0
"""Seconds between two plain lines where there is no terminal."""
ASK_INTERVAL = {"slurm": 30.0, "local": 0.0}
"""Seconds between two questions to the scheduler while one waits; files are read in between."""
PAUSE = 2.0
"""Seconds between two looks at the files on a terminal."""
GOING_ON = ("running", "queued", "waiting", "unknown")
HALF = 20.0
"""Seconds that a half-submitted run is waited for: the end of another run of its matrix may be about to queue it."""


def watch_runs(runs: Sequence[RunDir], *, details: bool) -> None:
    """Show these runs until all are over, and at the end as they then are; Ctrl-C ends it and leaves them going.

    On a terminal a table in place, elsewhere a line for what has changed. Files are read every few seconds, the
    scheduler is asked every 30.
    """
    try:
        if sys.stdout.isatty():
            with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
                for statuses in _looks(runs, PAUSE):
                    live.update(_picture(statuses, details), refresh=True)
            return
        said: dict[str, str] = {}
        for statuses in _looks(runs, QUIET_INTERVAL):
            for status in statuses:
                if (line := quiet_line(status)) != said.get(status.name):
                    said[status.name] = line
                    print(line, flush=True)
        print_runs(statuses)
    except KeyboardInterrupt:
        print()


def _looks(runs: Sequence[RunDir], pause: float) -> Iterator[list[RunStatus]]:
    """The statuses again and again, until none goes on by what the scheduler has just said."""
    interval = max(ASK_INTERVAL[read_facts(run).kind] for run in runs)
    going = time.monotonic()
    while True:
        runs = [run for run in runs if run.path.is_dir()]  # another hpcft may have removed one
        asked, answer = time.monotonic(), ask(runs)
        while True:
            statuses = read_status([run for run in runs if run.path.is_dir()], answer)
            fresh = time.monotonic() - asked < pause
            yield statuses
            states = {status.state for status in statuses}
            if states & {*GOING_ON}:
                going = time.monotonic()
            over = not states & {*GOING_ON}
            if over and "half-submitted" in states and time.monotonic() - going < HALF:
                break
            if over and fresh:
                return
            if over or time.monotonic() - asked >= interval:
                break  # an end is believed only when the scheduler has just been asked
            time.sleep(pause)
        time.sleep(pause)


def _picture(statuses: Sequence[RunStatus], with_details: bool) -> Group:
    lines = [*notes(statuses), *(line for status in statuses if with_details for line in details(status))]
    clock = time.strftime("%H:%M:%S")
    jobs = [jobs_table(status) for status in statuses if with_details]
    last = Text(f"{clock}, Ctrl-C leaves the runs going", "dim")
    return Group(runs_table(statuses), *map(Text, lines), *jobs, last)


def quiet_line(status: RunStatus) -> str:
    """`demo: step 48/100 job 2 train  loss 2.3107 ...`, for where there is no terminal."""
    return f"{status.name}: step {status.step}/{status.total_steps or '?'} {live_words(status)}"


def follow(run: RunDir) -> RunStatus:
    """The status at the end of the run, which is shown while it goes on.

    On a terminal a live line, elsewhere a plain line every few seconds. KeyboardInterrupt leaves the run going.
    """
    interval = ASK_INTERVAL[read_facts(run).kind]
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
        line = quiet_line(status)
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
            over = status.state not in GOING_ON
            stale = time.monotonic() - asked >= interval
            if not over:
                show(status)
            elif time.monotonic() - asked < pause or run.finished or run.halted:
                return status
            if stale or over:
                break  # an end is believed only when the scheduler has just been asked
            time.sleep(pause)
        time.sleep(pause)
