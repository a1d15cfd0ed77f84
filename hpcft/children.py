"""A process and its children end together: whoever is ended cleans up, and whoever is killed leaves no child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill` and Slurm, a terminal that closes."""


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for a signal to this process when its parent dies, so that nothing outlives a killed job.

    Only Linux does that; elsewhere, where curves are looked at, a child of a parent that is killed stays.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def dying_with(parent: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a child of `parent` does before it becomes another program, to get this signal when `parent` dies."""

    def prepare() -> None:
        die_with_parent(number)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel knew of our wish

    return prepare


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Run a block that signals end by an exception, so that it cleans up: KeyboardInterrupt, or SystemExit.

    The first one ends it, and others are ignored then: a terminal that closes sends two. What was ignored before, as
    SIGHUP is under nohup, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
