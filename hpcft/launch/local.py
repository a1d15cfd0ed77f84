"""The queue of this machine: records in the run directory, and a keeper process that starts one job at a time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import submitit

from hpcft.disk import Lock, write_whole
from hpcft.ending import write_ending
from hpcft.launch.submission import Submission
from hpcft.rundir import JobDir, RunDir

GRACE = 30.0
"""Seconds between the polite and the last signal of `cancel`, as KillWait in Slurm."""


def submit(submission: Submission) -> str:
    """The id of a queued job, `local3`: its record is all there is of it until the keeper starts it."""
    submission.folder.mkdir(parents=True, exist_ok=True)
    return f"local{submission.number}"


def keeper_lock(run: RunDir) -> Lock:
    """Held by the process that starts this run's jobs."""
    return Lock(run.path / "keeper.lock")


def wake_keeper(run: RunDir) -> None:
    """See to it that a keeper runs. It is a session of its own: closing the terminal does not end it."""
    if keeper_lock(run).held():
        return  # it looks for new jobs once more after it has dropped its lock
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SUBMITIT_"))}
    variables |= {"PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1"}
    with (run.path / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "hpcft.launch.keeper", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            start_new_session=True,
        )
    while keeper.poll() is None and not keeper_lock(run).held():
        time.sleep(0.02)  # so that whoever asks next finds the queue kept


def script(submission: Submission) -> str:
    """What bash runs for a job; its arguments are those of the python that trains."""
    return "\n".join(["#!/bin/bash", *submission.setup, f'exec {shlex.quote(str(submission.python))} "$@"', ""])


def start(submission: Submission, payload: Callable[[], str]) -> subprocess.Popen[bytes]:
    """Start a job through submitit's local machinery: a controller that holds it to its walltime and signals it."""
    batch = submission.folder / "batch.sh"
    write_whole(batch, script(submission).encode())
    executor = submitit.LocalExecutor(folder=submission.folder, python=f"bash {shlex.quote(str(batch))}")
    executor.update_parameters(
        timeout_min=(submission.walltime + 0.5) / 60,  # submitit cuts it to whole seconds
        signal_delay_s=submission.signal_lead,
        gpus_per_node=visible_gpus(),
        stderr_to_stdout=True,
    )
    job = executor.submit(payload)
    assert isinstance(job, submitit.LocalJob) and job._process is not None  # submitit 1.5.4 has no public way to it
    return job._process


def visible_gpus() -> int:
    """Number of NVIDIA devices of this machine; submitit hides all but as many as it is told of."""
    return len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def process_identity(pid: int) -> str | None:
    """When this process began, in clock ticks: with the pid, a name that is never used again. None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def end_time(walltime: float) -> float:
    """Seconds since the epoch at which the controller, our parent, will end this job."""
    ticks = float(process_identity(os.getppid()) or 0)
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK")) + walltime


def is_running(job: JobDir) -> bool:
    """Whether the job's supervisor is alive on this machine."""
    started = job.started
    return bool(started and job.ended is None and process_identity(started["pid"]) == started["identity"])


def cancel(job: JobDir) -> None:
    """Take a queued job out, or end a running one: it may save first, for `GRACE` seconds."""
    if job.started is None:
        # The supervisor looks for this first, should the keeper be starting it at this moment.
        write_ending(job, "cancelled")
    started = job.started  # read again: the keeper may have been faster
    if started is None or not is_running(job):
        return
    os.kill(started["pid"], signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while is_running(job):
        if time.monotonic() > deadline:
            os.kill(started["pid"], signal.SIGKILL)
            return
        time.sleep(0.1)


def next_job(run: RunDir) -> JobDir | None:
    """The first job that waits for its turn."""
    for job in run.jobs():
        if job.submitted and not job.started and not job.ended:
            return job
    return None


def states(jobs: Sequence[JobDir]) -> dict[Path, str]:
    """State of each job in Slurm's words; a queued one that no keeper will start is left out."""
    found = {}
    for job in jobs:
        run = RunDir(job.path.parent.parent)
        if job.ended:
            found[job.path] = "COMPLETED"
        elif is_running(job):
            found[job.path] = "RUNNING"
        elif job.started is None and job.submitted and keeper_lock(run).held():
            found[job.path] = "PENDING"
    return found
