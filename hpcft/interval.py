"""How often to save: what a save costs training against what a kill would lose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

PRIOR = 86_400.0
"""Seconds in which one failure is taken to happen before a run has records of its own."""
SHORTEST = 30.0
"""Seconds between two saves at least: what costs this run nothing still costs those who share its disk."""
LONGEST = 3600.0
"""Seconds that a kill may cost at most, however seldom one is to be expected."""
WRITE_SHARE = 0.1
"""Of the time, at most, in which the disk is written to."""
PARTS = 4
"""Of a job: should its last save fail too, no more than one of them is lost."""
FAILURES = ("killed", "crashed")
"""Endings without a last save. A walltime is none: it is saved before."""


def time_between_failures(ended: Iterable[Mapping[str, Any]]) -> float:
    """Seconds, from the endings of a run's jobs: all they ran, and the failures among them, beside the prior.

    >>> time_between_failures([])
    86400.0
    >>> time_between_failures([{"ending": "killed", "wall_seconds": 3600.0}, {"ending": "idle"}])
    45000.0
    """
    ran, failures = PRIOR, 1
    for ending in ended:
        ran += float(ending.get("wall_seconds", 0.0))
        failures += ending.get("ending") in FAILURES
    return ran / failures


def save_interval(stall: float, write: float, step: float, walltime: float, between_failures: float) -> int:
    """Steps between two saves, each of which stops training for `stall` seconds and is on disk after `write`.

    Young's approximation (CACM 17, 1974), the square root of twice the cost times the time between failures, is within
    1% of Daly's where a save costs so little beside that time. The other arguments are seconds too; `step` of one step.

    >>> save_interval(stall=2.0, write=20.0, step=9.0, walltime=86400.0, between_failures=86400.0)
    65
    """
    best = math.sqrt(2 * stall * between_failures)
    least = max(SHORTEST, write / WRITE_SHARE)
    most = min(LONGEST, walltime / PARTS)
    return max(1, round(max(least, min(best, most)) / max(step, 1e-6)))
