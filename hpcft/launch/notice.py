"""Notices: who is told that a run has finished, that a job of it failed, or that its chain halted; once for each."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpcft.disk import read_json, write_json
from hpcft.ending import last_granted
from hpcft.launch import slurm
from hpcft.rundir import JobDir, RunDir
from hpcft.sections import Notify

WEBHOOK_PATIENCE = 10.0
"""Seconds that a web server may take to answer."""
COMMAND_PATIENCE = 60.0
"""Seconds after which the user's command is killed."""
TRIES = 2
"""A job that is killed while it tells somebody leaves this to the next one, which tries once more."""
LONGEST = 2000
"""Characters of a reason that are passed on; the log has it all."""
OWN_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUNBUFFERED")
"""What makes a job import the run's own hpcft, and would mislead the user's command."""


@dataclass(frozen=True)
class Event:
    """One thing to be told."""

    name: str
    """finished, halted or failed."""
    key: str
    """Never the same for two events of a run."""
    text: str
    """A sentence or two for a person."""
    reason: str = ""
    fix: str = ""


def event_of(run: RunDir, job: JobDir) -> Event | None:
    """What the ending of this job, or of one before it that was killed, gives to tell; None for a mere cut."""
    if finished := run.finished:
        text = f"run {run.name} has finished after {finished['step']} steps. Its model: {run.final_model}"
        return Event("finished", "finished", text)
    if halted := run.halted:
        reason, fix = str(halted["reason"])[:LONGEST], str(halted["fix"])
        key = f"halted-{halted['job']:03d}-{halted['time']:.0f}"
        return Event("halted", key, f"run {run.name} has halted: {reason} {fix}".rstrip(), reason, fix)
    ended = job.ended or {}
    last = last_granted(run)
    telling = ("crashed", "walltime", "killed") if job.number >= last else ("crashed", "walltime")
    if run.stop_file.exists() or ended.get("ending") not in telling:
        return None
    name = f"job {job.number}" if job.attempt == 1 else f"attempt {job.attempt} of job {job.number}"
    reason = str(ended.get("reason", ""))[:LONGEST].rstrip(".")
    if job.number >= last:
        used = f"it has had its {run.recipe.resources.jobs} jobs and is not finished"
        reason = f"{reason}; {used}" if reason else used
        fix = f"`hpcft extend {run.name} N` grants N more."
        return Event("failed", f"failed-{job.path.name}", f"run {run.name} has ended: {reason}. {fix}", reason, fix)
    if ended["ending"] == "walltime":
        return None
    text = f"{name} of run {run.name} has failed: {reason}. The next one tries once more."
    return Event("failed", f"failed-{job.path.name}", text, reason, str(ended.get("fix", "")))


def tell(run: RunDir, job: JobDir) -> None:
    """Tell whom the recipe names what is to be told after this job, if nobody has yet. Raises nothing.

    The caller holds the run's lock. What was done is recorded for each channel before and after, so that a job that
    is killed in between has the next one try again, and nothing is told twice otherwise.
    """
    try:
        event, notify = event_of(run, job), run.recipe.notify
        if event is None or notify == Notify():
            return
        path = run.path / "notices" / f"{event.key}.json"
        path.parent.mkdir(exist_ok=True, mode=0o700)
        facts = facts_of(run, job, event)
        record = read_json(path) or {**facts, "channels": {}}
        for channel, send in _channels(notify, facts, job):
            known = record["channels"].get(channel, {"tries": 0})
            if known.get("result") or known["tries"] >= TRIES:
                continue
            record["channels"][channel] = {"tries": known["tries"] + 1, "time": time.time()}
            write_json(path, record)
            result = _outcome(send)
            record["channels"][channel]["result"] = result
            write_json(path, record)
            print(f"hpcft: {event.name}, told by {channel}: {result}", file=sys.stderr, flush=True)
    except Exception as error:
        # Whatever it is, the run's own records are written by now, and stay as they are.
        print(f"hpcft: nobody could be told: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def facts_of(run: RunDir, job: JobDir, event: Event) -> dict[str, Any]:
    """What is told, as plain values."""
    steps = [step for step in ((job.ended or {}).get("last_step"), *run.saved_steps()[-1:]) if step is not None]
    return {
        "text": f"hpcft: {event.text}",
        "id": f"{run.name}/{event.key}",
        "event": event.name,
        "run": run.name,
        "dir": str(run.path),
        "reason": event.reason,
        "fix": event.fix,
        "job": job.number,
        "slurm_id": job.slurm_id,
        "step": (run.finished or {}).get("step", max(steps, default=0)),
        "steps": run.total_steps(),
        "time": time.time(),
    }


def _channels(notify: Notify, facts: dict[str, Any], job: JobDir) -> list[tuple[str, Callable[[], None]]]:
    channels: list[tuple[str, Callable[[], None]]] = []
    if command := notify.command:
        channels.append(("command", lambda: run_command(shlex.split(command), facts)))
    if webhook := notify.webhook:
        channels.append(("webhook", lambda: post(webhook, facts)))
    if mail := notify.mail:
        name = f"hpcft-{facts['run']}-{facts['event']}"
        own_id = os.environ.get("SLURM_JOB_ID") or job.slurm_id or ""
        channels.append(("mail", lambda: slurm.mail_at_end(own_id, mail, name)))
    return channels


def _outcome(send: Callable[[], None]) -> str:
    try:
        send()
    except Exception as error:  # whatever a server or a program does is no fault of the run
        return f"failed: {type(error).__name__}: {error}"
    return "sent"


def run_command(words: list[str], facts: dict[str, Any]) -> None:
    """Run the user's program with what happened in its variables, and without a shell. Raises if it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    for key, value in facts.items():
        environment[f"HPCFT_{key.upper()}"] = "" if value is None else str(value).replace("\0", "")
    process = subprocess.Popen(
        words,
        cwd=facts["dir"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        start_new_session=True,
    )
    try:
        code = process.wait(COMMAND_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise RuntimeError(f"it was killed after {COMMAND_PATIENCE:g} s") from None
    if code:
        raise RuntimeError(f"exit code {code}")


def post(address: str, facts: dict[str, Any]) -> None:
    """POST the facts as JSON. Raises if the server does not take them; a proxy in the variables is honoured."""
    import urllib.request  # here, since it brings ssl, and most jobs tell nobody

    headers = {"Content-Type": "application/json", "User-Agent": "hpcft"}
    request = urllib.request.Request(address, json.dumps(facts).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=WEBHOOK_PATIENCE):
        pass
