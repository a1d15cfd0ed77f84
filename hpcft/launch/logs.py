"""The logs of a run: one file a job, read in order, and followed from job to job."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpcft.launch.status import read_status
from hpcft.rundir import JobDir, RunDir

PAUSE = 0.5
"""Seconds between two looks at the file that grows."""
ASK_EVERY = 30.0
"""Seconds between two questions whether the run still goes on."""


def log_files(job: JobDir) -> list[Path]:
    """The job's own log, and before it what its batch process printed, where there is anything in it."""
    batch = sorted(job.path.glob("*_log.out"))
    return [path for path in (*batch, job.log) if path.exists() and path.stat().st_size]


def print_logs(run: RunDir, number: int | None = None) -> None:
    """Every job's log, or that of one job."""
    for job in run.jobs():
        if number in (None, job.number) and (files := log_files(job)):
            _heading(job)
            for path in files:
                sys.stdout.write(path.read_text(errors="replace"))
    sys.stdout.flush()


def _heading(job: JobDir) -> None:
    print(f"==> {job.label} <==")


def follow_logs(run: RunDir) -> None:
    """The logs as they grow, across jobs, until the run is over."""
    positions: dict[Path, int] = {}
    shown: JobDir | None = None
    asked = time.monotonic()
    while True:
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
                    sys.stdout.write(text)
                    grew = True
        sys.stdout.flush()
        if run.finished or run.halted:
            return
        if not grew and time.monotonic() - asked > ASK_EVERY:
            asked = time.monotonic()
            if read_status([run])[0].state not in ("running", "queued", "unknown"):
                return
        time.sleep(PAUSE)
