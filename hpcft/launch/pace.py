"""The pace: seconds that work still takes, and the jobs that it needs, from what jobs so far have taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcft.launch.status import JobStatus


def jobs_needed(seconds_left: float, walltime: float, overhead: float) -> int | None:
    """Jobs that so many seconds of work still need, each with its overhead; None if a job has no time for work.

    >>> jobs_needed(10_000, walltime=3600, overhead=100)
    3
    """
    if seconds_left <= 0:
        return 0
    return math.ceil(seconds_left / (walltime - overhead)) if walltime > overhead else None


def eta(jobs: Sequence[JobStatus], step: int, total: int | None, walltime: float) -> float | None:
    """Seconds of job time that are left, at the pace of the steps so far, with a start and a save for each job.

    None until a job has trained. Queue waits are not in it.
    """
    trained = [job for job in jobs if job.kept_steps and job.useful_seconds]
    if total is None or not trained:
        return None
    pace = sum(job.useful_seconds for job in trained) / sum(job.kept_steps for job in trained)
    left = pace * (total - step)
    overhead = job_overhead(trained)
    running = max(0.0, walltime - (seconds_running(jobs) or 0.0))
    if left <= running:
        return left
    later = left - running
    return running + later + (jobs_needed(later, walltime, min(overhead, walltime - pace)) or 0) * overhead


def job_overhead(trained: Sequence[JobStatus]) -> float:
    """Mean seconds of a job that were no training: start, evaluation, saves."""
    lost = [(job.wall_seconds or 0.0) - job.useful_seconds for job in trained]
    return max(0.0, sum(lost) / len(lost))


def seconds_running(jobs: Sequence[JobStatus]) -> float | None:
    """Seconds that the running job has run."""
    return next((job.wall_seconds for job in reversed(jobs) if job.ending is None and job.wall_seconds), None)
