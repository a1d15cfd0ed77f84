"""The status of the jobs of a run: what each kept, where its seconds went, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcft.launch import slurm
from hpcft.launch.facts import JobFacts, RunFacts
from hpcft.launch.waits import queue_waits

LIVE = (
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "POWER_UP_NODE", "EXPEDITING"),
)
"""Slurm's states of a job that will still do something; a word not known here counts as not live."""


@dataclass(frozen=True)
class JobStatus:
    """One job of a run."""

    number: int
    attempt: int
    slurm_id: str | None
    state: str | None
    """The scheduler's word; None when it was not asked or does not know the job."""
    state_from: str
    """Who said so, or why nobody did."""
    reason: str
    """Why it waits, in words."""
    node: str | None
    ending: str | None
    """Ours: finished, walltime, killed, ...; None while it has none."""
    why: str | None
    """What went wrong, for an ending that is no good one."""
    resume_step: int | None
    """Steps done when it began; None if it never came to train."""
    first_step: int | None
    """First step that survives in the curve; None if none does."""
    last_step: int | None
    """Last step that survives."""
    kept_steps: int
    loss: float | None
    steps_done: int
    """Kept or not."""
    start: dict[str, float]
    """Seconds from the batch process to the end of the first step, by phase: launch, imports, data, model, ..."""
    seconds: dict[str, float]
    """Of the job's life after that, by phase: train, evaluate, test, save."""
    counts: dict[str, int]
    """How often it has evaluated, tested, saved."""
    wall_seconds: float | None
    useful_seconds: float
    """Training seconds of the steps that survive."""
    wait_seconds: float | None
    """In the queue, from the moment it could have begun; None while it waits."""
    gpu_hours: float


def job_statuses(run: RunFacts, states: dict[Path, slurm.JobState], lost: bool, now: float) -> list[JobStatus]:
    """The jobs of a run in order: what each has left, and what the schedulers say of it; `lost`: they are silent."""
    found: list[JobStatus] = []
    waits = queue_waits(run.jobs)
    cut: int | None = None  # a later job that has trained began here
    for job in reversed(run.jobs):
        ended, started, facts = job.ended or {}, job.started or {}, job.last_words
        resume_step, last = (job.resumed or {}).get("step"), facts.get("last_step")
        said = states.get(job.job.path)
        if cut is None and last is not None and _died(job, said):
            last = min(last, run.saved[0] if run.saved else 0)  # what it had not saved is lost
        kept = 0
        first_step = last_step = None
        if resume_step is not None and last is not None and last > resume_step:
            end = last if cut is None else min(last, cut)
            if cut is not None and ended.get("ending") == "killed":
                end = cut if cut > resume_step else end  # its last heartbeat is older than its last step
            kept = max(0, end - resume_step)
            if kept:
                first_step, last_step = resume_step + 1, end
            cut = resume_step if cut is None else min(cut, resume_step)
        train, trained = facts.get("seconds", {}).get("train", 0.0), (last or 0) - (resume_step or 0)
        wall = _wall(job, said.state if said else None, now)
        gpus = (job.submitted or {}).get("gpus", run.recipe.resources.gpus * run.recipe.resources.nodes)
        found.append(
            JobStatus(
                number=job.job.number,
                attempt=job.job.attempt,
                slurm_id=job.slurm_id,
                state=said.state if said else ended.get("slurm_state"),
                state_from=said.source if said else _nobody_said(job, lost),
                reason=said.reason if said else "",
                node=(said.node if said and said.node else None) or started.get("node") or started.get("host"),
                ending=ended.get("ending"),
                why=ended.get("reason"),
                resume_step=resume_step,
                first_step=first_step,
                last_step=last_step,
                kept_steps=kept,
                loss=facts.get("loss"),
                steps_done=max(0, trained),
                start=facts.get("start", {}),
                seconds=facts.get("seconds", {}),
                counts=facts.get("counts", {}),
                wall_seconds=wall,
                useful_seconds=train * min(1.0, kept / trained) if trained > 0 else 0.0,
                wait_seconds=waits.get(job.job.path),
                gpu_hours=(wall or 0.0) * gpus / 3600,
            )
        )
    return found[::-1]


def _died(job: JobFacts, said: slurm.JobState | None) -> bool:
    """Whether the job was killed, or is gone by the scheduler's word without having written an ending."""
    if job.ended:
        return bool(job.ended["ending"] == "killed")
    return job.started is not None and said is not None and said.state not in LIVE


def _nobody_said(job: JobFacts, lost: bool) -> str:
    """Why there is no word of the scheduler's on a job."""
    if job.ended:
        return "its record" if "slurm_state" in job.ended else "not asked: its ending is on record"
    return "not known: Slurm does not answer" if lost else "the scheduler does not know it"


def _wall(job: JobFacts, state: str | None, now: float) -> float | None:
    if job.ended and "wall_seconds" in job.ended:
        return float(job.ended["wall_seconds"])
    if not job.started:
        return None
    end = now if state == "RUNNING" and not job.ended else job.last_words.get("time")
    return max(0.0, float(end) - float(job.started["time"])) if end else None
