"""The post-mortem of a run: its last bad ending, what is known of it, and the command that may help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcft.disk import read_json
from hpcft.ending import ENDINGS, STATES
from hpcft.launch import chain
from hpcft.launch.facts import JobFacts, RunFacts, read_facts
from hpcft.launch.jobstatus import LIVE
from hpcft.launch.logs import log_files, spoken
from hpcft.launch.mend import Evidence, mend
from hpcft.launch.slurm_account import Account, account
from hpcft.launch.status import RunStatus, ask, read_status
from hpcft.launch.words import amount, clock, count, duration, tracker_words
from hpcft.rundir import JobDir, RunDir

BAD = ("crashed", "killed", "refused")
TAIL = 64_000
"""Bytes at the end of a log in which its last error is looked for."""
LINES = 12
"""Lines of it that are shown."""


@dataclass(frozen=True)
class Case:
    """One bad ending."""

    job: JobFacts
    ending: str
    """Ours, or `no ending` for a job that could not write one."""
    reason: str
    account: Account | None


def explain(run: RunDir) -> list[str]:
    """What `hpcft why` says, line by line. Asks Slurm one squeue and one sacct at most."""
    answer = ask([run], accounting=False)
    facts, status = read_facts(run), read_status([run], answer)[0]
    trackers = [tracker_words(tracker) for tracker in status.trackers if tracker["fault"]]
    return [*_explain(facts, status), *trackers]


def _explain(facts: RunFacts, status: RunStatus) -> list[str]:
    run, job = facts.run, _last_bad(facts, status)
    if status.save_fault:
        return [f"{run.name} is running, at step {status.step}, and cannot save: {status.save_fault}"]
    if job is None:
        return [_nothing_wrong(facts, status)]
    case = _case(job, facts)
    lines = [_head(facts, status), ""]
    lines += [f"{key:10}{value}" for key, value in _facts(case)]
    if said := last_error(job.job):
        path, text = said
        lines += ["", f"the end of {path}:", *(f"  | {line}" for line in text)]
    if later := _went_on(job, facts):
        return [*lines, "", f"Job {later} has gone on since: nothing is to be mended."]
    if case.ending in ("terminated", "cancelled"):
        return [*lines, "", f"Nothing is to be mended: `hpcft resume {run.name}` goes on from its newest checkpoint."]
    cluster = chain.run_cluster(run)
    known = case.account
    evidence = Evidence(case.reason)
    if known:
        evidence = Evidence(case.reason, known.state, known.asked_memory, known.used_memory)
    lines += ["", *mend(run.name, facts.recipe, cluster, evidence, goes_on=status.state in ("running", "queued"))]
    return lines


def _last_bad(run: RunFacts, status: RunStatus) -> JobFacts | None:
    """The newest job that ended badly, or that is gone without an ending; None if there is none.

    One that began says more than those behind it, which may have left the queue with it.
    """
    states = {(job.number, job.attempt): job.state for job in status.jobs}
    newest = {job.job.number: job.job.attempt for job in run.jobs}
    bad: list[JobFacts] = []
    lost: list[JobFacts] = []
    for job in run.jobs:
        attempt = job.job.number, job.job.attempt
        if job.ended:
            ending = job.ended["ending"]
            by_hand = status.state == "broken off" and (ending == "terminated" or "slurm_state" in job.ended)
            if ending in BAD or by_hand or (ending == "walltime" and not job.ended.get("progress", True)):
                bad.append(job)
        elif status.state == "unknown" or not run.queued or run.stop is not None or states[attempt] in LIVE:
            continue  # alive, or nobody knows
        elif newest[job.job.number] == job.job.attempt:
            (bad if job.started else lost).append(job)
    last = max((job.job.number for job in run.jobs if job.started), default=0)
    if lost and not (bad and bad[-1].job.number >= last):
        return lost[0]
    return bad[-1] if bad else None


def _went_on(bad: JobFacts, run: RunFacts) -> int | None:
    """The number of a later job that has trained further than the newest checkpoint of this one."""
    for job in reversed(run.jobs):
        later = (job.job.number, job.job.attempt) > (bad.job.number, bad.job.attempt)
        trained = (job.last_words.get("last_step") or 0) > (job.resumed or {}).get("step", 0)
        if later and job.resumed and trained:
            return job.job.number
    return None


def _case(job: JobFacts, run: RunFacts) -> Case:
    known = account(job.slurm_id) if run.kind == "slurm" and job.slurm_id else None
    if job.ended:
        return Case(job, job.ended["ending"], _reason(job), known)
    died = "all its processes were killed" if job.started else "it never came to its first line"
    return Case(job, "no ending", died, known)


def _reason(job: JobFacts) -> str:
    fault = read_json(job.job.path / "fault.json")
    ended = job.ended or {}
    if ended.get("ending") == "walltime" and "reason" not in ended:
        return "the walltime is too short for one step and a save"
    return str((fault or ended).get("reason") or ENDINGS.get(ended.get("ending", ""), "it left no word"))


def _head(run: RunFacts, status: RunStatus) -> str:
    words = f"{run.run.name} is {status.state}"
    if run.halted:
        return f"{words}: {run.halted['reason']}"
    if status.state in ("running", "queued", "finished"):
        return f"{words}, at step {status.step}. The last thing that went wrong in it:"
    return f"{words}."


def _facts(case: Case) -> Iterator[tuple[str, str]]:
    job, known = case.job, case.account
    started, ended = job.started or {}, job.ended or {}
    name = f"job {job.job.number}" if job.job.attempt == 1 else f"job {job.job.number}, attempt {job.job.attempt}"
    yield "job", f"{name} ({job.slurm_id}), {case.ending}"
    if started:
        end = ended.get("time") or job.last_words.get("time")
        lasted = f", for {duration(end - started['time'])}" if end else ""
        yield "ran", f"from {clock(started['time'])}{lasted}, on {started.get('node') or started.get('host')}"
        first, last = (job.resumed or {}).get("step"), job.last_words.get("last_step")
        steps = "it never came to train" if first is None else f"from step {first} to {first if last is None else last}"
        saved = ended.get("saved_step")
        yield "steps", f"{steps}{'' if saved is None else f'; the newest checkpoint is of step {saved}'}"
    yield "reason", " ".join(case.reason.split())
    if (code := ended.get("exit_code")) is not None:
        rank = ended.get("rank")
        what = f"signal {-code}" if code < 0 else f"exit code {code}"
        yield "exit", f"{what}{'' if rank is None else f', of rank {rank}'}"
    if known:
        by = f" by {known.ended_by}" if known.ended_by else ""
        meaning = f": {STATES[known.state]}" if known.state in STATES else ""
        yield "Slurm", f"{known.state}{by}, exit code {known.exit_code}{meaning}"
        if known.used_memory is not None:
            of = f" of {amount(known.asked_memory)}" if known.asked_memory else ""
            yield "memory", f"{amount(known.used_memory)}{of} on the host, as far as Slurm sampled it"
    elif job.slurm_id and job.slurm_id.isdigit():
        yield "Slurm", "its accounting does not know the job, or does not answer"


def last_error(job: JobDir) -> tuple[Path, list[str]] | None:
    """The end of the job's last traceback, else of its log, and where that stands; None if it printed nothing."""
    files = log_files(job)
    if not files:
        return None
    path = job.log if job.log in files else files[-1]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        text = spoken(file.read().decode(errors="replace"))
    if not text.strip():
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    error = lines[starts[-1] :] if starts else lines
    # A traceback ends with the first line that is not indented: what other ranks print after it is theirs.
    ends = [
        number for number, line in enumerate(error) if number and re.match(r"\S+(Error|Exception|Interrupt)\b", line)
    ]
    if starts and ends:
        error = error[: ends[-1] + LINES // 2]
    return path, error[-LINES:]


def _nothing_wrong(run: RunFacts, status: RunStatus) -> str:
    endings = Counter(job.ended["ending"] for job in run.jobs if job.ended and job.started)
    ended = ", ".join(f"{number} {ending}" for ending, number in endings.items())
    how = f": of its jobs have ended {ended}" if ended else ", and no job of it has ended yet"
    by_hand = {"stopped": " `hpcft stop` paused it.", "cancelled": " It was cancelled."}.get(status.state, "")
    silent = " Slurm does not answer, so a job that died a moment ago would not be known." * (status.state == "unknown")
    steps = count(status.step, "step")
    note = f" {status.note}" if status.state in ("broken off", "queued") and status.note else ""
    return f"Nothing went wrong in {run.run.name}, which is {status.state} after {steps}{how}.{by_hand}{note}{silent}"
