"""Waits in the queue: how long this run's jobs have waited, and what the jobs to come will wait if it goes on so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcft.launch.facts import JobFacts


def queue_waits(jobs: Sequence[JobFacts]) -> dict[Path, float]:
    """Seconds from the moment when each job could have begun to the one when it did, of all that began, by directory.

    A job could have begun when it was submitted, and all the jobs it waits for had ended. A requeued attempt is left
    out: nobody recorded when Slurm put it back.
    """
    ends = _ends(jobs)
    return {
        job.job.path: max(0.0, job.started["time"] - _eligible(job, ends))
        for job in jobs
        if job.started and job.submitted and job.job.attempt == 1
    }


def _ends(jobs: Sequence[JobFacts]) -> dict[str | None, float]:
    return {job.slurm_id: job.ended["time"] for job in jobs if job.ended and "time" in job.ended}


def _eligible(job: JobFacts, ends: dict[str | None, float]) -> float:
    submitted = job.submitted or {}
    return max([float(submitted["time"]), *(ends[one] for one in submitted.get("after", ()) if one in ends)])


def waits_to_come(jobs: Sequence[JobFacts], waits: Sequence[float], to_come: int | None, now: float) -> float | None:
    """Seconds that so many jobs will wait, each as long as the mean so far, less what the next has waited already.

    None where nothing is known of it; 0 where no job will wait.
    """
    if to_come is None or (to_come and not waits):
        return None
    if not to_come:
        return 0.0
    mean = sum(waits) / len(waits)
    ends = _ends(jobs)
    next_one = next((job for job in jobs if not job.started and not job.ended), None)
    running = any(job.started and not job.ended for job in jobs)
    waited = max(0.0, now - _eligible(next_one, ends)) if next_one and not running else 0.0
    return max(0.0, mean - waited) + (to_come - 1) * mean
