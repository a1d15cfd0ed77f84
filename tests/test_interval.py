"""The saving interval: a function of numbers, between two bounds."""

from __future__ import annotations

import doctest
import math

import pytest

from hpcft import interval
from hpcft.interval import save_interval, time_between_failures

DAY = 86400.0


def seconds(**other: float) -> int:
    """Of the interval, in steps of one second."""
    given = {"stall": 1.0, "write": 5.0, "step": 1.0, "walltime": DAY, "between_failures": DAY}
    return save_interval(**{**given, **other})


def test_the_examples_hold() -> None:
    assert doctest.testmod(interval).failed == 0


def test_the_interval_loses_least_of_all_between_its_bounds() -> None:
    def lost(every: float, stall: float, between: float) -> float:
        """Share of the time that goes to saves and to what kills cost, half an interval each."""
        return stall / every + every / 2 / between

    for stall, between in [(0.1, DAY), (2.0, DAY), (1.0, 9000.0)]:
        best = seconds(stall=stall, write=1.0, between_failures=between)
        assert all(lost(best, stall, between) <= lost(best * other, stall, between) for other in (0.8, 1.25))


def test_it_grows_with_the_cost_and_shrinks_with_the_failures() -> None:
    assert seconds(stall=4.0) == pytest.approx(2 * seconds(), abs=1)
    assert seconds(between_failures=DAY / 4) == pytest.approx(seconds() / 2, abs=1)
    assert save_interval(1.0, 5.0, 8.0, DAY, DAY) == round(math.sqrt(2 * DAY) / 8)


def test_neither_the_disk_nor_a_job_is_given_too_much() -> None:
    assert seconds(stall=1e-4) == 50, "ten times what a write takes"
    assert seconds(stall=1e-6, write=0.01) == 30
    assert seconds(stall=600.0) == 3600
    assert seconds(stall=600.0, walltime=3600.0) == 900, "four parts of a job"
    assert seconds(write=200.0, walltime=3600.0) == 2000, "the disk comes first"
    assert seconds(step=1e5) == 1


def test_failures_are_those_of_the_runs_own_records_beside_one_a_day() -> None:
    good = {"ending": "walltime", "wall_seconds": DAY}
    assert time_between_failures([good] * 9) == 10 * DAY, "a walltime is no failure"
    assert time_between_failures([{"ending": "crashed", "wall_seconds": 0.0}] * 3) == DAY / 4
    assert time_between_failures([{"ending": "cancelled"}]) == DAY
