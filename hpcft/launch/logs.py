"""The logs of a run: one file a job, read in order, and followed from job to job."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.launch.status import RunStatus, read_status
from hpcft.rundir import JobDir, RunDir

PAUSE = 0.5
"""Seconds between two looks at the file that grows."""
ASK_EVERY = 30.0
"""Seconds between two questions whether the run still goes on."""


def log_files(job: JobDir) -> list[Path]:
    """The job's own log, and before it what its batch process printed, where there is anything in it."""
    batch = sorted(job.path.glob("*_log.out"))
    return [path for path in (*batch, job.log) if path.exists() and path.stat().st_size]


WRAPPER = re.compile(
    r"^submitit INFO \([^)]*\) - "
    r"(?:Starting with JobEnvironment|Loading pickle|Job completed successfully|Exiting after successful).*\n?",
    re.MULTILINE,
)
"""What submitit prints around every job; its success is that our supervisor has returned, which it does after a kill
of the workers too."""


def spoken(text: str) -> str:
    """What a job has printed, less what submitit prints around every one."""
    return WRAPPER.sub("", text)


def print_logs(run: RunDir, number: int | None = None) -> None:
    """Every job's log, or that of one job. Raises UserError if there is no job of this number."""
    numbers = sorted({job.number for job in run.jobs()})
    if number is not None and number not in numbers:
        there = f"jobs {numbers[0]} to {numbers[-1]}" if numbers[1:] else "job 1"
        raise UserError(Fault("--job", f"{run.name} has no job {number}.", f"It has {there}."))
    silent = True
    for job in run.jobs():
        if number in (None, job.number):
            texts = [path.read_text(errors="replace") for path in log_files(job)]
            if texts:  # a job that had no word of its own to say has begun all the same
                _heading(job)
                sys.stdout.write(spoken("".join(texts)))
                silent = False
    if silent:
        who = "its jobs have" if number is None else f"job {number} has"
        print(f"{run.name}: {who} printed nothing yet.")
    sys.stdout.flush()


def _heading(job: JobDir) -> None:
    print(f"==> {job.label} <==")


def follow_logs(run: RunDir) -> None:
    """The logs as they grow, across jobs, until the run is over; then, in a line, how it stands."""
    positions: dict[Path, int] = {}
    shown: JobDir | None = None
    asked = time.monotonic()
    while True:
        over = bool(run.finished or run.halted)  # before the last look: what was printed until then is shown
        grew = False
        for job in run.jobs():
            for path in log_files(job):
                with path.open(errors="replace") as file:
                    file.seek(positions.get(path, 0))
                    text = file.read()
                    positions[path] = file.tell()
                if text:
                    if shown != job:
                        _heading(job)
                        shown = job
                    sys.stdout.write(spoken(text))
                    grew = True
        sys.stdout.flush()
        if over or (not grew and time.monotonic() - asked > ASK_EVERY):
            asked = time.monotonic()
            status = read_status([run])[0]
            if over or status.state not in ("running", "queued", "unknown"):
                print(last_line(status), flush=True)
                return
        time.sleep(PAUSE)


def last_line(status: RunStatus) -> str:
    """`==> demo is stopped at step 48. `hpcft resume demo` goes on. <==`: why nothing more will come."""
    return f"==> {status.name} is {status.state} at step {status.step}. {status.note}".rstrip() + " <=="
