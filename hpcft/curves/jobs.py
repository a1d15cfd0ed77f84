"""The jobs of a run as the stitcher wants them."""

from __future__ import annotations

from hpcft.curves.stitch import JobCurve
from hpcft.rundir import RunDir


def job_curves(run: RunDir) -> list[JobCurve]:
    """Every job that was submitted, oldest first."""
    return [
        JobCurve(job.label, job.number, job.attempt, job.curve, (job.resumed or {}).get("step"))
        for job in run.jobs()
        if job.submitted
    ]
