"""Chains of jobs made up for the tests: real event files, values that tell which job wrote them."""

from pathlib import Path

from hpcft.curves.stitch import JobCurve
from hpcft.curves.writer import CurveWriter


def add_points(directory: Path, tag: str, steps: list[int], job: int, begun: float = 0.0) -> None:
    """Log `job` + step / 10000 at each step, one second apart from `begun` (seconds since 1970) on."""
    writer = CurveWriter(directory)
    for second, step in enumerate(steps):
        writer.scalar(tag, job + step / 10_000, step, wall_time=begun + second)
    writer.close()
    assert writer.lost == 0


def job_curve(root: Path, number: int, resume_step: int | None, attempt: int = 1) -> JobCurve:
    suffix = "" if attempt == 1 else f".{attempt}"
    return JobCurve(f"job{number:03d}-47{number:02d}{suffix}", number, attempt,
                    root / f"job{number:03d}.{attempt}", resume_step)  # fmt: skip


def three_jobs(root: Path) -> list[JobCurve]:
    """Killed at 234 after the checkpoint at 200, killed at 430 after that at 400, done at 600."""
    jobs = [job_curve(root, 1, 0), job_curve(root, 2, 200), job_curve(root, 3, 400)]
    for job, last in zip(jobs, (234, 430, 600), strict=True):
        log_job(job, last)
    return jobs


def log_job(job: JobCurve, last: int, first: int | None = None) -> None:
    """What such a job logs up to step `last`: train/loss at each, validation/loss at every 50th and at 0."""
    assert job.resume_step is not None
    begun = 1_000_000.0 * job.number
    first = job.resume_step + 1 if first is None else first
    steps = list(range(first, last + 1))
    add_points(job.directory, "train/loss", steps, job.number, begun)
    at = [step for step in steps if step % 50 == 0]
    if first == 1:
        at.insert(0, 0)
    if at:
        add_points(job.directory, "validation/loss", at, job.number, begun)
