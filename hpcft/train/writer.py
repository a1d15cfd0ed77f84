"""The background writer: one piece of work at a time, beside the training, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How a write went."""

    step: int
    """That it saved."""
    seconds: float
    error: OSError | None = None
    """What the file system said, if it refused."""


class Writer:
    """A thread for each write, and never two at once; used by one thread alone."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self._bug: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a write is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, step: int, work: Callable[[], None]) -> None:
        """Begin to write. The one before must have ended, and its outcome be collected."""
        if self._thread is not None:
            raise RuntimeError("a write is in flight, or nobody has asked what came of it")
        # A daemon, so that a process which must end is not held by a file system that hangs.
        self._thread = threading.Thread(target=self._run, args=(step, work), name="hpcft-save", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until no write is in flight."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, step: int, work: Callable[[], None]) -> None:
        started = time.monotonic()
        error: OSError | None = None
        try:
            work()
        except OSError as refusal:
            error = refusal
        except Exception as bug:
            self._bug = bug
        self._outcome = Outcome(step, time.monotonic() - started, error)

    def collect(self, *, wait: bool = False) -> Outcome | None:
        """What came of the write that has ended since last time; None where none has. Raises what is no OSError."""
        if self._thread is None or (not wait and self._thread.is_alive()):
            return None
        self._thread.join()
        self._thread = None
        if self._bug:
            raise self._bug
        return self._outcome
