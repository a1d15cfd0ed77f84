"""The status of runs: what the scheduler says, what the run itself says, and what follows from both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcft.launch import chain, local, slurm
from hpcft.launch.pace import eta
from hpcft.rundir import JobDir, RunDir

LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "RESIZING")
"""Slurm's states of a job that will still do something; a word not known here counts as not live."""


@dataclass(frozen=True)
class JobStatus:
    """One job of a run."""

    number: int
    attempt: int
    slurm_id: str | None
    state: str | None
    """The scheduler's word; None when it was not asked or does not know the job."""
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
    seconds: dict[str, float]
    """Of the job's life, by phase: start, train, evaluate, save."""
    wall_seconds: float | None
    useful_seconds: float
    """Training seconds of the steps that survive."""


@dataclass(frozen=True)
class RunStatus:
    """One run."""

    name: str
    dir: str
    cluster: str
    state: str
    """finished, halted, stopped, running, queued, half-submitted, cancelled, broken off, or unknown."""
    note: str
    """What to do or know, in words."""
    step: int
    total_steps: int | None
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    phase: str | None
    saved_step: int | None
    heartbeat_age: float | None
    """Seconds since the running job's last sign of life."""
    eta_seconds: float | None
    """Of training and overhead, without queue waits; None until it can be known."""
    jobs: list[JobStatus] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What the schedulers said when they were asked."""

    states: dict[Path, slurm.JobState]
    """By job directory."""
    slurm_silent: bool
    """Whether Slurm was asked and did not answer."""


def ask(runs: Sequence[RunDir]) -> Answer:
    """The schedulers' answer on all open jobs of these runs: at most one squeue and one sacct call."""
    kinds = {run.path: chain.run_cluster(run).kind for run in runs}
    open_jobs = [job for run in runs for job in run.jobs() if job.submitted and not job.ended]
    on_slurm = [job for job in open_jobs if kinds[job.path.parent.parent] == "slurm"]
    here = [job for job in open_jobs if kinds[job.path.parent.parent] == "local"]
    states = {path: slurm.JobState(state) for path, state in local.states(here).items()}
    answer = slurm.query(sorted({job.slurm_id for job in on_slurm if job.slurm_id}))
    if answer is not None:
        states |= {job.path: answer[job.slurm_id] for job in on_slurm if job.slurm_id in answer}
    return Answer(states, answer is None)


def read_status(runs: Sequence[RunDir], answer: Answer | None = None) -> list[RunStatus]:
    """The status of all these runs, from their files and what the schedulers say, or said a moment ago."""
    answer = answer or ask(runs)
    found = []
    for run in runs:
        lost = answer.slurm_silent and chain.run_cluster(run).kind == "slurm"
        found.append(_run_status(run, answer.states, lost))
    return found


def _run_status(run: RunDir, states: dict[Path, slurm.JobState], lost: bool) -> RunStatus:
    jobs = job_statuses(run, states)
    running = next((job for job in reversed(run.jobs()) if job.started and not job.ended), None)
    beat = (running.heartbeat or {}) if running else {}
    state, note = _state(run, jobs, lost)
    saved = run.saved_steps()
    total = run.total_steps()
    kept = max((job.last_step or 0 for job in jobs), default=0)
    step = int(beat.get("last_step") or kept) if state == "running" else kept
    return RunStatus(
        name=run.name,
        dir=str(run.path),
        cluster=str((run.submission or {})["cluster"]["name"]),
        state=state,
        note=note,
        step=max(step, (run.finished or {}).get("step", 0)),
        total_steps=total,
        loss=_latest(run, "loss"),
        validation_loss=_latest(run, "validation_loss"),
        tokens_per_second=beat.get("tokens_per_second"),
        phase=beat.get("phase"),
        saved_step=saved[-1] if saved else None,
        heartbeat_age=time.time() - beat["time"] if beat else None,
        eta_seconds=eta(jobs, step, total, _walltime(running)) if state == "running" else None,
        jobs=jobs,
    )


def _state(run: RunDir, jobs: Sequence[JobStatus], lost: bool) -> tuple[str, str]:
    """The run's state and what is to be said of it: positive evidence first, nothing concluded from silence."""
    if run.finished:
        return "finished", ""
    if halted := run.halted:
        return "halted", f"{halted['reason']} {halted['fix']}".strip()
    half = "half-submitted", f"`hpcft resume {run.name}` completes it, `hpcft cancel {run.name}` undoes it."
    # A job that has started was released: the kill came after that, and all is as it should be.
    if not (run.path / "queued.json").exists() and not any(job.started for job in run.jobs()):
        return half
    if lost:
        return "unknown", "Slurm does not answer."
    if any(job.state == "RUNNING" for job in jobs):
        stopping = " It stops as soon as it has saved." if run.stop_file.exists() else ""
        return "running", stopping.strip()
    if run.stop_file.exists():
        cancelled = run.stop_file.read_bytes() == chain.CANCELLED
        return "cancelled" if cancelled else "stopped", f"`hpcft resume {run.name}` goes on."
    if waiting := [job for job in jobs if job.state in LIVE]:
        # Released jobs are not held: whoever queued these was killed before that.
        return half if all(job.reason == "held" for job in waiting) else ("queued", waiting[0].reason)
    if any(job.ending == "cancelled" for job in jobs):
        return "cancelled", f"`hpcft resume {run.name}` goes on."
    limit = run.recipe.resources.jobs
    if max((job.number for job in jobs), default=0) >= run.submitted_before + limit:
        return "broken off", f"It has had its {limit} jobs (resources.jobs). `hpcft resume {run.name}` grants as many."
    return "broken off", f"No job runs or waits. `hpcft resume {run.name}` goes on."


def _walltime(job: JobDir | None) -> float:
    return float((job.submitted or {})["walltime"]) if job else 0.0


def _latest(run: RunDir, key: str) -> float | None:
    for job in reversed(run.jobs()):
        facts = job.ended or job.heartbeat or {}
        if facts.get(key) is not None:
            return float(facts[key])
    return None


def job_statuses(run: RunDir, states: dict[Path, slurm.JobState]) -> list[JobStatus]:
    """Every job and attempt, with the steps of it that survive in the curve."""
    found: list[JobStatus] = []
    cut: int | None = None  # a later job that has trained began here
    for job in reversed(run.jobs()):
        if not job.submitted:
            continue
        ended, started, resumed = job.ended or {}, job.started or {}, job.resumed or {}
        facts = ended or job.heartbeat or {}
        resume_step, last = resumed.get("step"), facts.get("last_step")
        kept = 0
        first_step = last_step = None
        if resume_step is not None and last is not None and last > resume_step:
            end = last if cut is None else min(last, cut)
            if cut is not None and job.ended and ended["ending"] == "killed":
                end = cut if cut > resume_step else end  # its last heartbeat is older than its last step
            kept = max(0, end - resume_step)
            if kept:
                first_step, last_step = resume_step + 1, end
            cut = resume_step if cut is None else min(cut, resume_step)
        said = states.get(job.path)
        train, trained = facts.get("seconds", {}).get("train", 0.0), (last or 0) - (resume_step or 0)
        found.append(
            JobStatus(
                number=job.number,
                attempt=job.attempt,
                slurm_id=job.slurm_id,
                state=said.state if said else None,
                reason=said.reason if said else "",
                node=(said.node if said and said.node else None) or started.get("node") or started.get("host"),
                ending=ended.get("ending"),
                why=ended.get("reason"),
                resume_step=resume_step,
                first_step=first_step,
                last_step=last_step,
                kept_steps=kept,
                loss=facts.get("loss"),
                seconds=facts.get("seconds", {}),
                wall_seconds=_wall(job, ended, started),
                useful_seconds=train * min(1.0, kept / trained) if trained > 0 else 0.0,
            )
        )
    return found[::-1]


def _wall(job: JobDir, ended: dict[str, Any], started: dict[str, Any]) -> float | None:
    if "wall_seconds" in ended:
        return float(ended["wall_seconds"])
    end = ended.get("time") or (job.heartbeat or {}).get("time")
    return float(end) - float(started["time"]) if started and end else None
