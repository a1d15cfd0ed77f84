"""The jobs of a run as the stitcher wants them, and as the text tab shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.reader import Damage
from hpcft.curves.stitch import JobCurve, Stitched
from hpcft.rundir import JobDir, RunDir

TRAIN = "train/loss"


def job_curves(run: RunDir) -> list[JobCurve]:
    """Every job that was submitted, oldest first."""
    return [
        JobCurve(job.label, job.number, job.attempt, job.curve, (job.resumed or {}).get("step"), job.ended is not None)
        for job in run.jobs()
        if job.submitted
    ]


def chain_table(run: RunDir) -> Callable[[Stitched], str]:
    """What gives the jobs of a run as a Markdown table."""
    jobs = {job.label: job for job in run.jobs() if job.started}
    ends = {job.slurm_id: job.ended["time"] for job in jobs.values() if job.ended}

    def table(stitched: Stitched) -> str:
        rows = [
            "| job | went on at | steps kept | superseded | waited | ending | lost in its log |",
            "|---|---|---|---|---|---|---|",
        ]
        for job in stitched.jobs:
            if job.label in jobs:
                rows.append(_row(job, jobs[job.label], stitched, ends))
        return "\n".join(rows)

    return table


def _row(job: JobCurve, record: JobDir, stitched: Stitched, ends: Mapping[str | None, float]) -> str:
    kept = [segment.points.steps for segment in stitched.kept(TRAIN) if segment.job.label == job.label]
    dead = [segment.points.steps for segment in stitched.superseded(TRAIN) if segment.job.label == job.label]
    ended = record.ended
    cells = (
        job.label,
        "-" if job.resume_step is None else f"step {job.resume_step}",
        _steps(kept[0], ended is not None) if kept else "-",
        _steps(dead[0]) if dead else "-",
        _waited(record, ends),
        str(ended["ending"]) if ended else "runs",
        _lost(stitched.damage[job.label]) if ended else "-",
    )
    return f"| {' | '.join(cells)} |"


def _waited(record: JobDir, ends: Mapping[str | None, float]) -> str:
    """From when it could have begun, since the jobs that it waits for had ended; of a requeue nobody knows it."""
    submitted, started = record.submitted, record.started
    if record.attempt > 1 or not submitted or not started:
        return "-"
    free = max([float(submitted["time"]), *(ends[one] for one in submitted.get("after", ()) if one in ends)])
    return f"{max(0.0, started['time'] - free):.0f} s"


def _steps(steps: NDArray[np.int64], known: bool = True) -> str:
    """As long as a job runs its last step is another at each look."""
    return f"{steps[0]} to {steps[-1]}" if known else f"{steps[0]} on"


def _lost(damage: Damage) -> str:
    lost = [f"{damage.bad_frames} events"] * bool(damage.bad_frames)
    lost += [f"{damage.lost_bytes} bytes"] * bool(damage.lost_bytes)
    return ", ".join([*lost, *damage.unreadable]) or "-"
