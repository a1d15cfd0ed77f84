"""The verdict: whether the chain goes on after what its jobs came to, and why not, in words that help."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.disk import write_json
from hpcft.ending import NEUTRAL
from hpcft.rundir import JobDir, RunDir

CRASHES = 2
"""Crashes in a row without a new checkpoint that end the chain: a third would not go another way."""
KILLS = 5
"""Kills from outside in a row without a new checkpoint. They are chance, so they get more tries than crashes."""

REASONS: Sequence[tuple[str, str, str]] = (
    (
        r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError",
        "the GPU ran out of memory",
        "`hpcft resume RUN --set train.micro_batch_size=N` goes on with a smaller one.",
    ),
    (
        r"No space left on device|Disk quota exceeded|Errno 28|Errno 122",
        "the disk is full",
        "Make room, then resume.",
    ),
    (
        r"no kernel image is available",
        "this torch was not built for this GPU",
        "A V100 needs sm_70: torch 2.10 or older from PyPI, or a cu126 build up to 2.14.",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "a package is missing in the env: {0}",
        "Install it there, then resume.",
    ),
    (
        r"MemoryError|DefaultCPUAllocator: can't allocate",
        "the job ran out of host memory",
        "`hpcft resume RUN --set resources.memory=NG` goes on with more.",
    ),
    (
        r"non-finite loss",
        "the loss became infinite or no number",
        "Look at the rows it names; `hpcft resume RUN --set train.learning_rate=X` goes on with a smaller one.",
    ),
)


@dataclass(frozen=True)
class Halt:
    """Why no further job starts."""

    reason: str
    fix: str


def has_known_cause(log: Path) -> bool:
    """Whether the end of a job's log names something that would fail on every node."""
    return bool(_found(_tail(log)))


def explain_log(log: Path, code: int | None = None) -> Halt:
    """What the end of a job's log says, in words; its last line where we know no better."""
    text = _tail(log)
    if found := _found(text):
        return found
    if code == -9:
        return Halt(
            "a worker was killed from outside, as the kernel does when memory is short",
            "`hpcft resume RUN --set resources.memory=NG` goes on with more, if it was that.",
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return Halt(lines[-1].strip() if lines else "it left no word in its log", "See `hpcft logs`.")


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64_000))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _found(text: str) -> Halt | None:
    """The last cause that this text names: what stands before it was survived."""
    found = [(match, reason, fix) for pattern, reason, fix in REASONS for match in re.finditer(pattern, text)]
    if not found:
        return None
    match, reason, fix = max(found, key=lambda one: one[0].start())
    return Halt(reason.format(*match.groups()), fix)


def crash_loop(run: RunDir) -> Halt | None:
    """Why the chain must not go on, from the endings of its jobs since the last one that got further."""
    crashes: list[dict[str, Any]] = []
    kills = 0
    for job in reversed(run.jobs()):
        ended = job.ended
        if ended is None or ended["ending"] in NEUTRAL:
            continue
        if ended.get("progress") or job.number <= run.resumed_after:
            break
        crashes += [ended] if ended["ending"] in ("crashed", "walltime") else []
        kills += ended["ending"] in ("killed", "terminated")
        if len(crashes) == CRASHES:
            newest = crashes[0]
            reason = newest.get("reason", _too_short(newest)).rstrip(".")
            fix = newest.get("fix", "`hpcft resume RUN --set resources.walltime=H:MM:SS` goes on with a longer one.")
            return Halt(f"{CRASHES} jobs in a row ended without a step that was kept: {reason}.", fix)
        if kills == KILLS:
            reason = f"{KILLS} jobs in a row were killed before they could save a step."
            return Halt(reason, "`hpcft resume RUN --set train.save_every=N` goes on with a smaller one.")
    return None


def _too_short(ended: dict[str, Any]) -> str:
    """What had no room in the walltime of a job that has saved nothing new."""
    if ended.get("phase") == "evaluate":
        return "the walltime is too short for an evaluation of data.validation"
    return "the walltime is too short for one step and a save"


def halt(run: RunDir, job: JobDir, verdict: Halt) -> None:
    """Let no further job of this run do anything until the user resumes it."""
    fix = verdict.fix.replace("hpcft resume RUN", f"hpcft resume {run.name}")
    record = {"reason": verdict.reason, "fix": fix, "job": job.number, "time": time.time()}
    write_json(run.path / "halted.json", record)
