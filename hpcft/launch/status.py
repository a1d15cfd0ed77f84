"""The status of runs: what the scheduler says, what the run itself says, and what follows from both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcft.ending import MAY_RETURN
from hpcft.launch import local, slurm
from hpcft.launch.facts import JobFacts, RunFacts, read_facts
from hpcft.launch.jobstatus import LIVE, JobStatus, job_statuses
from hpcft.launch.pace import Place, outlook
from hpcft.launch.waits import queue_waits, waits_to_come
from hpcft.launch.words import duration
from hpcft.rundir import CANCELLED, RunDir

STATE_WORDS = {
    "PENDING": "waits",
    "RUNNING": "runs",
    "CONFIGURING": "runs, its node is getting ready",
    "COMPLETING": "is ending",
    "SUSPENDED": "is suspended",
    "REQUEUED": "is queued again",
    "REQUEUE_HOLD": "is queued again, and held",
    "RESIZING": "is changing its size",
}
PHASE_WORDS = {
    "start": "starts",
    "train": "trains",
    "evaluate": "evaluates",
    "test": "tests",
    "save": "saves",
    "finish": "writes the final model",
    "next phase": "begins the next phase",
}
SPEEDS = ("tokens_per_second", "trained_tokens_per_second", "padding_share", "mfu", "gpu_memory_peak")
"""What the running job says of itself, beside its loss."""
TURN = "waits until another run of its matrix ends"
SILENCE = 60.0
"""Seconds without a heartbeat after which that is said; it is renewed every second."""


@dataclass(frozen=True)
class RunStatus:
    """One run."""

    name: str
    dir: str
    cluster: str
    state: str
    """finished, halted, stopped, running, queued, waiting, half-submitted, cancelled, broken off, or unknown."""
    note: str
    """What to do or know, in words."""
    queue: str
    """What the scheduler says of the job that matters most, in words."""
    says: str
    """What the run's own files say, whatever the scheduler does."""
    step: int
    total_steps: int | None
    loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    """Of a task with classes."""
    tokens_per_second: float | None
    """Read by all processes, without padding."""
    trained_tokens_per_second: float | None
    padding_share: float | None
    mfu: float | None
    """Share of what its cards could do at best; None where their peak is not known."""
    gpu_memory_peak: float | None
    """GB on the first card, the most so far."""
    phase: str | None
    """What the running job does."""
    recipe_phase: str | None
    """The phase of the recipe that the run is in, by its name; None of a recipe without phases."""
    phases: list[dict[str, Any]]
    """{name, begins, ends, over, ...} of each phase, once the first job has counted the rows."""
    saved_step: int | None
    saved_age: float | None
    """Seconds since the newest checkpoint was whole."""
    save_fault: str | None
    """Why the running job could not write its last checkpoint, and what to do; None if it could."""
    heartbeat_age: float | None
    """Seconds since the running job's last sign of life."""
    gpu_hours_used: float
    gpu_hours_left: float | None
    """At the pace so far; None until it can be known."""
    eta_seconds: float | None
    """Of training and overhead, without queue waits; None until it can be known."""
    eta_jobs: int | None
    """Jobs that have not begun and will be needed."""
    jobs_granted: int
    """Jobs that have not begun and still may, by resources.jobs."""
    queue_waits: list[float]
    """Seconds that each job of this run has waited in the queue."""
    eta_waits: float | None
    """Seconds in the queue that those jobs will take if they wait as long as jobs of this run have, on average."""
    eta_with_waits: float | None
    jobs: list[JobStatus] = field(default_factory=list)
    trackers: list[dict[str, Any]] = field(default_factory=list)
    """{name, id, step, fault} of each other tracker that gets the curve: what it calls the run, the last step it has,
    and why it did not take the newest points, or None."""

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


def ask(runs: Sequence[RunDir], *, accounting: bool = True) -> Answer:
    """The schedulers' answer on all open jobs of these runs: at most one squeue and one sacct call."""
    return _ask([read_facts(run) for run in runs], accounting)


def _ask(runs: Sequence[RunFacts], accounting: bool = True) -> Answer:
    here: list[JobFacts] = []
    on_slurm: list[JobFacts] = []
    requeued: list[JobFacts] = []
    for run in runs:
        last_attempts = {job.job.number: job for job in run.jobs}.values()
        open_jobs = [job for job in last_attempts if not job.ended]
        (here if run.kind == "local" else on_slurm).extend(open_jobs)
        # Slurm may start a job again that was told to end: what has an ending then waits, or runs, once more.
        if run.kind == "slurm" and not run.finished:
            requeued += [job for job in last_attempts if (job.ended or {}).get("ending") in MAY_RETURN]
    states = {
        path: slurm.JobState(word, source="this machine") for path, word in local.states([j.job for j in here]).items()
    }
    ids = sorted({job.slurm_id for job in (*on_slurm, *requeued) if job.slurm_id})
    account = sorted({job.slurm_id for job in on_slurm if job.slurm_id}) if accounting else []
    answer = slurm.query(ids, account=account)
    if answer is not None:
        states |= {job.job.path: answer[job.slurm_id] for job in (*on_slurm, *requeued) if job.slurm_id in answer}
    return Answer(states, answer is None)


def read_status(runs: Sequence[RunDir], answer: Answer | None = None) -> list[RunStatus]:
    """The status of all these runs, from their files and what the schedulers say, or said a moment ago."""
    facts = [read_facts(run) for run in runs]
    answer = answer or _ask(facts)
    return [_run_status(run, answer.states, answer.slurm_silent and run.kind == "slurm") for run in facts]


def _run_status(run: RunFacts, states: dict[Path, slurm.JobState], lost: bool) -> RunStatus:
    now = time.time()
    jobs = job_statuses(run, states, lost, now)
    running = run.running
    beat = (running.heartbeat or {}) if running else {}
    state, note = _state(run, jobs, lost)
    total = run.total_steps
    kept = max((job.last_step or 0 for job in jobs), default=0)
    step = max(int(beat.get("last_step") or kept) if state == "running" else kept, (run.finished or {}).get("step", 0))
    recipe_phase = _recipe_phase(run, step)
    place = _place(run, beat, step, now) if state in ("running", "queued") else None
    to_come = outlook(jobs, run.recipe, place) if place else None
    left = to_come.seconds if to_come else None
    waits = list(queue_waits(run.jobs).values())
    more = to_come.jobs if to_come else None
    waiting = waits_to_come(run.jobs, waits, more, now)
    gpus = run.recipe.resources.gpus * run.recipe.resources.nodes
    return RunStatus(
        name=run.run.name,
        dir=str(run.run.path),
        cluster=run.cluster,
        state=state,
        note=note,
        queue=_queue_words(jobs, lost, run.kind) if state != "waiting" else TURN,
        says=_own_words(run, beat, now) + _phase_words(run, beat, recipe_phase),
        step=step,
        total_steps=total,
        loss=run.latest("loss"),
        validation_loss=run.latest("validation_loss"),
        validation_accuracy=run.latest("validation_accuracy"),
        **{key: beat.get(key) for key in SPEEDS},
        phase=beat.get("phase"),
        recipe_phase=recipe_phase,
        phases=run.phases,
        saved_step=run.saved[0] if run.saved else None,
        saved_age=max(0.0, now - run.saved[1]) if run.saved else None,
        save_fault=beat.get("save_fault") if state == "running" else None,
        heartbeat_age=max(0.0, now - beat["time"]) if beat else None,
        gpu_hours_used=sum(job.gpu_hours for job in jobs),
        gpu_hours_left=None if left is None else left * gpus / 3600,
        eta_seconds=left,
        eta_jobs=more,
        jobs_granted=run.jobs_granted,
        queue_waits=waits,
        eta_waits=waiting,
        eta_with_waits=None if left is None or waiting is None else left + waiting,
        jobs=jobs,
        trackers=[_tracker(name, facts) for name, facts in run.trackers.items()],
    )


def _tracker(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    step = max(facts.get("given", -1), facts["sent"])
    return {"name": name, "id": facts.get("id"), "step": int(step), "fault": facts.get("fault")}


def _state(run: RunFacts, jobs: Sequence[JobStatus], lost: bool) -> tuple[str, str]:
    """The run's state and what is to be said of it: positive evidence first, nothing concluded from silence."""
    name = run.run.name
    if run.finished:
        return "finished", ""
    if halted := run.halted:
        fix = str(halted["fix"]).replace("`hpcft logs`", f"`hpcft why {name}` and `hpcft logs {name}`")
        return "halted", f"{halted['reason']} {fix}".strip()
    if run.waits and not run.jobs:
        return "waiting", ""
    half = "half-submitted", f"`hpcft resume {name}` completes it, `hpcft cancel {name}` undoes it."
    # A job that has started was released: the kill came after that, and all is as it should be.
    if not run.queued and not any(job.started for job in run.jobs):
        return half
    if lost:
        return "unknown", "Slurm does not answer."
    if any(job.state == "RUNNING" for job in jobs):
        return "running", "" if run.stop is None else "It stops as soon as it has saved."
    if run.stop is not None:
        return "cancelled" if run.stop == CANCELLED else "stopped", f"`hpcft resume {name}` goes on."
    if waiting := [job for job in jobs if job.state in LIVE]:
        # Nobody let these go: whoever queued them was killed before that. A hand may hold what was let go.
        held = all(job.reason == "held" and not run.run.job(job.number).released.exists() for job in waiting)
        return half if held else ("queued", waiting[0].reason)
    if any(_cancelled_by_hand(job) and job.job.number > run.submitted_before for job in run.jobs):
        return "cancelled", f"`hpcft resume {name}` goes on."
    limit = run.recipe.resources.jobs
    if not run.jobs_granted:
        return "broken off", f"It has had its {limit} jobs (resources.jobs). `hpcft resume {name}` grants as many."
    return "broken off", f"No job runs or waits. `hpcft why {name}` says what happened, `hpcft resume {name}` goes on."


def _cancelled_by_hand(job: JobFacts) -> bool:
    ended = job.ended or {}
    return ended.get("ending") == "cancelled" and ended.get("found_by") != "hpcft"


def _queue_words(jobs: Sequence[JobStatus], lost: bool, kind: str) -> str:
    """`job 3 runs on gpu001`, `job 4 waits: others are before it`; of what runs before what waits."""
    if lost:
        return "Slurm does not answer"
    live = [job for job in jobs if job.state in LIVE]
    for job in sorted(live, key=lambda job: job.state == "PENDING"):
        words = f"job {job.number} {STATE_WORDS.get(job.state or '', (job.state or '').lower())}"
        if job.state == "RUNNING" and job.node and kind == "slurm":
            words += f" on {job.node}"
        return f"{words}: {job.reason}" if job.reason else words
    return "nothing"


def _own_words(run: RunFacts, beat: dict[str, Any], now: float) -> str:
    """`trains`, `saves, stopping (walltime)`, `halted`: from the run's files alone."""
    if run.finished or run.halted:
        return "finished" if run.finished else "halted"
    if run.running:
        words = PHASE_WORDS.get(beat.get("phase", "start"), str(beat.get("phase")))
        if beat.get("stopping"):
            words += f", stopping ({beat['stopping']})"
        if beat and now - beat["time"] > SILENCE:
            words = f"silent for {duration(now - beat['time'])}"
        return words
    if run.stop is not None:
        return "cancelled" if run.stop == CANCELLED else "stopped"
    last = next((job for job in reversed(run.jobs) if job.ended and job.started), None)
    return f"job {last.job.number} {(last.ended or {})['ending']}" if last else "not begun"


def _place(run: RunFacts, beat: dict[str, Any], step: int, now: float) -> Place | None:
    """Where the run stands; None where its length or walltime is not known."""
    total, walltime = run.total_steps, _walltime(run)
    if total is None or walltime is None:
        return None
    every = run.recipe.train.save_every
    return Place(
        step=step,
        total=total,
        walltime=walltime,
        margin=run.stop_margin,
        save_every=None if every == "auto" else every,
        save_stall=run.latest("save_stall_seconds") or 0.0,
        save_seconds=run.latest("save_seconds") or 0.0,
        phase=beat.get("phase", "start") if run.running else None,
        phase_seconds=max(0.0, now - beat.get("since", now)),
        validation_steps=float(run.latest("validation_steps") or 0.0),
        stopping=bool(beat.get("stopping")),
        phases=run.phases,
    )


def _phase_words(run: RunFacts, beat: dict[str, Any], phase: str | None) -> str:
    """` phase 1 of 2`, where it trains."""
    names = [phase.name for phase in run.recipe.phases]
    if phase is None or not run.running or beat.get("phase") != "train" or beat.get("stopping"):
        return ""
    return f" phase {names.index(phase) + 1} of {len(names)}"


def _recipe_phase(run: RunFacts, step: int) -> str | None:
    """The phase that is trained, or comes next; the last one of a run that is finished."""
    left = [phase["name"] for phase in run.phases if step < phase["ends"] or not (phase["over"] or run.finished)]
    names = [phase.name for phase in run.recipe.phases]
    return next(iter(left or names[-1:] if run.phases else names), None)


def _walltime(run: RunFacts) -> float | None:
    """Seconds of the job that runs, else of the next one."""
    jobs = [run.running, *(job for job in run.jobs if not job.ended), *run.jobs[-1:]]
    return next((float(job.submitted["walltime"]) for job in jobs if job and job.submitted), None)
