"""The queue behind a running job, kept as long as the run still needs jobs, from a thread of the supervisor's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from hpcft.launch import chain
from hpcft.rundir import RunDir

REVIEW = 600.0
"""Seconds between two looks at the queue: a job that somebody cancelled by hand is replaced, a needless one leaves."""
ASK_AGAIN = 120.0
"""Seconds until the next try where the scheduler is away, or takes no more jobs of this user."""


class Queueing:
    """Queues jobs behind the running one; a silent scheduler must not keep the supervisor from stopping in time."""

    def __init__(self, run: RunDir, number: int, needed: Callable[[], int | None]) -> None:
        """`needed`: jobs that the run still needs after this one, None while nobody knows."""
        self._run, self._number, self._needed = run, number, needed
        self._wake, self._asked, self._over = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Begin with a first look."""
        self._thread.start()

    def look(self) -> None:
        """Look at the queue now: this job is about to end, and the next one must be there."""
        self._asked.set()
        self._wake.set()

    def close(self, patience: float) -> None:
        """End after the look that is under way or asked for, for which we wait at most so many seconds."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _keep(self) -> None:
        while not self._over.is_set() or self._asked.is_set():
            self._asked.clear()
            self._wake.clear()
            pause = REVIEW
            try:
                chain.top_up(self._run, self._number, self._needed())
            except Exception as error:  # whatever it is, this thread must be there for the next look
                print(f"hpcft: no job could be queued behind this one: {error}", file=sys.stderr, flush=True)
                pause = ASK_AGAIN
            if not self._over.is_set():
                self._wake.wait(pause)
