"""The handover from job to job: who may write to the run when Slurm has started one while another still lives."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpcft.disk import Lock, read_json, write_json
from hpcft.rundir import JobDir, RunDir

PATIENCE = 60.0
"""Seconds to wait for a job that Slurm calls ended and the kernel is still reaping."""
SILENCE = 30.0
"""Seconds without a sign of life after which the holder of the lock is no longer waited for."""
LONGEST = 900.0
"""Seconds to wait at most for a holder that is alive: it has been asked to save and end."""


def take_lock(lock: Lock, run: RunDir, job: JobDir, gives_up: Callable[[], bool]) -> bool:
    """Whether the run is ours to write to. Until it is, the job that holds it is asked to save and end.

    Slurm starts the next job when it believes the one before to be gone. After a failure of the network or of a
    node's slurmd that is not so: the old one still trains, and the new one has the better right.
    """
    if lock.take():
        return True
    claim = run.path / "claim.json"
    mine = {"number": job.number, "attempt": job.attempt, "time": time.time()}
    write_json(claim, mine)
    try:
        return _wait(lock, run, job, gives_up)
    finally:
        if read_json(claim) == mine:
            claim.unlink(missing_ok=True)


def _wait(lock: Lock, run: RunDir, job: JobDir, gives_up: Callable[[], bool]) -> bool:
    begun = time.monotonic()
    while not gives_up():
        if lock.take(1.0):
            return True
        waited = time.monotonic() - begun
        if waited > LONGEST or (waited > PATIENCE and not _alive(run, job)):
            return False
    return False


def _alive(run: RunDir, job: JobDir) -> bool:
    """Whether another job has shown a sign of life a moment ago."""
    beats = [other.heartbeat for other in run.jobs() if other.path != job.path and not other.ended]
    return any(beat and time.time() - beat["time"] < SILENCE for beat in beats)


def claimed_by_later(run: RunDir, job: JobDir) -> bool:
    """Whether a job after this one has begun and waits for it to end."""
    claim = read_json(run.path / "claim.json")
    return claim is not None and (claim["number"], claim["attempt"]) > (job.number, job.attempt)
