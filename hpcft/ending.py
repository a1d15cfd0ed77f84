"""The ending of a job: why it ended, in our words, whoever of the chain writes it down."""

from __future__ import annotations

import time
from typing import Any

from hpcft.disk import write_json
from hpcft.rundir import JobDir, RunDir

ENDINGS = {
    "finished": "trained to the last step",
    "walltime": "saved before its walltime ended",
    "stopped": "saved, as `hpcft stop` asked",
    "terminated": "saved, as it was told to end (scancel, preemption, requeue)",
    "crashed": "a worker failed",
    "killed": "all its processes were killed",
    "refused": "something in the recipe, the data or the env cannot work",
    "cancelled": "taken out of the queue",
    "idle": "found nothing to do",
    "locked": "found another job still at work on the run",
}
NEUTRAL = ("cancelled", "idle", "locked")
"""Endings that say nothing of whether training works."""
MAY_RETURN = ("terminated", "killed")
"""Endings after which Slurm may start the same job again, as a new attempt."""


def last_granted(run: RunDir) -> int:
    """The last job that resources.jobs grants, which counts from the last resume.

    One that hpcft took out of the queue again before it began does not count.
    """
    before = run.submitted_before
    lapsed = [job for job in run.jobs() if job.number > before and has_lapsed(job.started, job.ended)]
    return before + run.recipe.resources.jobs + len(lapsed)


def has_lapsed(started: dict[str, Any] | None, ended: dict[str, Any] | None) -> bool:
    """Whether hpcft took a job out of the queue before it began, of which these are the facts."""
    return not started and (ended or {}).get("found_by") == "hpcft"


def write_ending(job: JobDir, ending: str, **facts: Any) -> None:
    """Write down how a job ended, whole."""
    if ending not in ENDINGS:
        raise ValueError(f"no ending: {ending}")
    write_json(job.path / "ended.json", {"time": time.time(), **facts, "ending": ending})


def close_waiting(job: JobDir, **facts: Any) -> None:
    """Write down that a job left the queue before it began; nothing if it has begun meanwhile."""
    if job.started is None and job.ended is None:
        write_ending(job, "cancelled", **facts)


def close_gone(job: JobDir, newest: int | None, found_by: str, state: str = "", node: str = "") -> None:
    """Write the ending of a job that could not: all that is known is what it left behind, and what Slurm says.

    `newest` is the step of the newest checkpoint; `state` Slurm's word, `""` where it has none.
    """
    started, beat = job.started, job.heartbeat or {}
    slurm = {"slurm_state": state} if state else {}
    if started is None and state.startswith("CANCELLED"):
        write_ending(job, "cancelled", found_by=found_by, **slurm)
        return
    saved_before = started["saved_step"] if started else None
    facts = {key: beat[key] for key in ("first_step", "last_step", "loss", "seconds", "counts", "start") if key in beat}
    died = "all its processes were killed" if started else "it never came to its first line"
    write_ending(
        job,
        "killed",
        **facts,
        **slurm,
        **({"node": node} if node else {}),
        time=beat.get("time") or (started or {}).get("time") or time.time(),
        found_by=found_by,
        progress=bool(started) and newest is not None and newest > (saved_before or 0),
        reason=f"{died}: {STATES[state]}" if state in STATES else died,
        fix="See `hpcft logs`.",
    )


STATES = {
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "it used more host memory than it had asked for",
    "TIMEOUT": "its walltime ended before it had saved",
    "DEADLINE": "its deadline passed",
    "PREEMPTED": "another job pushed it out",
    "CANCELLED": "it was cancelled",
}
"""What Slurm's states say about the death of a job."""
