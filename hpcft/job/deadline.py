"""When to stop: the clock, the signal and the user's STOP, brought together in one answer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

SOONER = 30.0
"""Seconds by which an end has to come nearer to count as another one."""


@dataclass
class Signals:
    """The signals this process has got. It owns them: workers ignore theirs (see workers.py)."""

    seen: list[tuple[str, float]] = field(default_factory=list)

    def install(self) -> None:
        """Note USR2 (the walltime nears) and TERM or INT (stop now) in place of what submitit does with them."""
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        # Slurm sends CONT before each of its signals; a hangup is for terminals.
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.seen.append((signal.Signals(number).name, time.time()))

    def count(self, *names: str) -> int:
        """How often one of these has come."""
        return sum(name in names for name, _ in self.seen)


@dataclass
class Deadline:
    """The end of this job, and how long before it training has to stop."""

    end_time: Callable[[], float | None]
    """Asks the scheduler; seconds since the epoch, or None where it does not say."""
    margin: float
    """Seconds to spare after the save."""
    end: float | None = None
    known: bool = False
    """Whether `end` is the scheduler's word and not reckoned from the walltime asked for."""
    warnings: int = 0
    moved: bool = False
    """Whether the end came nearer while we ran: a preemption with a time of grace."""

    def begin(self, started: float, walltime: float) -> None:
        """Read the end, since backfill may have shortened what was asked for (sbatch --time-min)."""
        told = self.end_time()
        self.end, self.known = told or started + walltime, told is not None

    def lead(self, save_seconds: float, poll_seconds: float) -> float:
        """Seconds before the end at which to stop: workers look up once a micro-batch, and a save may be slow."""
        return 1.25 * save_seconds + 1.5 * poll_seconds + self.margin

    def reason(self, signals: Signals, save_seconds: float, poll_seconds: float) -> str | None:
        """`terminated`, `walltime`, or None while there is time.

        The walltime signal comes up to a minute early, so where the end is known it only makes us read the end
        again: at a preemption it is what tells that the end has moved.
        """
        if signals.count("SIGTERM", "SIGINT"):
            return "terminated"
        if (warnings := signals.count("SIGUSR2")) > self.warnings:
            self.warnings = warnings
            told = self.end_time()
            if told is None and not self.known:
                return "walltime"
            self.moved = self.moved or bool(told and self.end and told < self.end - SOONER)
            self.end = told or self.end
        if self.end is not None and time.time() >= self.end - self.lead(save_seconds, poll_seconds):
            return "terminated" if self.moved else "walltime"
        return None


def save_need(progress: Mapping[str, Any], now: float) -> float:
    """Seconds until everything is on disk if training stops now: the rest of a save in flight, and one more.

    `save_seconds` is measured before the first step: earlier there is nothing to save.
    """
    save = float(progress.get("save_seconds") or 0.0)
    since = progress.get("saving_since")
    if since is None:
        return save
    lasted = now - float(since)
    return max(save, lasted) + max(0.0, save - lasted)


def slurm_job_id() -> str | None:
    """The id of the Slurm job that we are the batch process of."""
    return os.environ.get("SLURM_JOB_ID")


def slurm_attempt() -> int:
    """1, or more after Slurm has requeued this id: SLURM_RESTART_COUNT exists only then."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1
