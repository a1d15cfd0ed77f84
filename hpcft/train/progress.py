"""What rank 0 tells the supervisor: where training is, and where its seconds went."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.disk import write_json

EVERY = 0.5
"""Seconds between two reports at most; the file is on the node's own disk."""
LINE_EVERY = 30.0
"""Seconds between two lines in the log."""


@dataclass
class Progress:
    """A small JSON file, rewritten as training goes on; silent on other ranks."""

    path: Path
    active: bool
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """How often each phase came to its end."""
    start: dict[str, float] = field(default_factory=dict)
    """Seconds of what comes before training, and of the first step."""
    border: int | None = None
    """Step at which this job went from one phase to the next."""
    _lap: float = field(default_factory=time.monotonic)
    _last: float = 0.0
    _printed: float = -math.inf

    def say(self, **facts: Any) -> None:
        """Report now."""
        self.facts.update(facts)
        self._write()

    def note(self, **facts: Any) -> None:
        """Report if the last report is old enough."""
        self.facts.update(facts)
        if time.monotonic() - self._last >= EVERY:
            self._write()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds of this block under a name: evaluate, test, save, finish."""
        started, around = time.monotonic(), self.facts.get("phase")
        self.say(phase=name, since=time.time())
        try:
            yield
            self.counts[name] = self.counts.get(name, 0) + 1
        finally:
            self.spent(name, time.monotonic() - started)
            self.facts["phase"] = around
            self._write()  # what is left in the middle of it, by a stop, may have been the last that the job does

    def lap(self, name: str) -> None:
        """Count the seconds since the last lap, or since this was made, as a part of the start.

        Behind the job's first step they are those of the way to the next phase.
        """
        now = time.monotonic()
        if "first_step" in self.facts:
            self.spent("next phase", now - self._lap)
        else:
            self.start[name] = self.start.get(name, 0.0) + now - self._lap
        self._lap = now
        self._write()

    def next_phase(self, step: int) -> None:
        """Say that the next phase is set up: until it is, there is nothing to save, and the job may be ended."""
        self.border, self._lap = step, time.monotonic()
        self.facts.pop("resume_step", None)
        self.say(phase="next phase", since=time.time())

    def print_line(self, step: int, total: int) -> None:
        """A line for the log where the last one is old enough; the first step and the last have one."""
        if not self.active or (time.monotonic() - self._printed < LINE_EVERY and step < total):
            return
        self._printed = time.monotonic()
        words = f"step {step}/{total}  loss {self.facts['loss']:.4f}"
        print(f"hpcft: {words}  {self.facts['tokens_per_second']:.0f} tokens/s", flush=True)

    def spent(self, name: str, seconds: float) -> None:
        """Add to the seconds of a phase."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _write(self) -> None:
        self._last = time.monotonic()
        if self.active:
            facts = {**self.facts, "seconds": self.seconds, "counts": self.counts, "start": self.start}
            write_json(self.path, facts, durable=False)


def first_progress(scratch: Path) -> Progress:
    """Of a process that has just begun; its rank is what the supervisor has said."""
    progress = Progress(scratch / "progress.json", os.environ.get("RANK", "0") == "0")
    progress.say(phase="start")
    return progress
