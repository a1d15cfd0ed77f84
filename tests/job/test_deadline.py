"""When to stop: the clock decides where the end is known, USR2 only re-reads it, and TERM means now."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hpcft.job import deadline as deadline_module
from hpcft.job.deadline import Deadline, Signals, save_need, slurm_attempt, slurm_job_id

NOW = 1_000_000.0


@dataclass
class Scheduler:
    """Says when the job ends, and counts how often it was asked."""

    end: float | None
    asked: int = 0

    def __call__(self) -> float | None:
        self.asked += 1
        return self.end


class Clock:
    """Stands for `time` in the module; moves only when told."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline_module, "time", clock)
    return clock


def begin(scheduler: Scheduler, walltime: float = 100.0, margin: float = 10.0) -> Deadline:
    deadline = Deadline(scheduler, margin)
    deadline.begin(NOW, walltime)
    return deadline


def got(*names: str) -> Signals:
    return Signals([(name, NOW) for name in names])


# --- the clock ---


def test_the_end_is_the_schedulers_word_else_reckoned_from_the_walltime_asked_for(clock: Clock) -> None:
    told, silent = begin(Scheduler(NOW + 50)), begin(Scheduler(None))
    assert (told.end, told.known) == (NOW + 50, True)
    assert (silent.end, silent.known) == (NOW + 100, False)


def test_training_stops_when_just_the_time_for_a_save_is_left(clock: Clock) -> None:
    deadline = begin(Scheduler(NOW + 100))
    lead = deadline.lead(save_seconds=8.0, poll_seconds=2.0)
    assert lead == 1.25 * 8 + 1.5 * 2 + 10
    clock.now = NOW + 100 - lead - 0.01
    assert deadline.reason(got(), 8.0, 2.0) is None
    clock.now = NOW + 100 - lead
    assert deadline.reason(got(), 8.0, 2.0) == "walltime"


def test_a_slower_save_stops_training_earlier(clock: Clock) -> None:
    deadline = begin(Scheduler(NOW + 100))
    clock.now = NOW + 80
    assert deadline.reason(got(), 0.0, 0.0) is None
    assert deadline.reason(got(), 10.0, 0.0) == "walltime"


def test_a_stop_leaves_time_for_the_save_in_flight_and_one_more() -> None:
    assert save_need({}, NOW) == 0
    assert save_need({"save_seconds": 8.0}, NOW) == 8
    assert save_need({"save_seconds": 8.0, "saving_since": NOW - 3}, NOW) == 5 + 8
    assert save_need({"save_seconds": 8.0, "saving_since": NOW - 20}, NOW) == 20, "it is slower than the last one"


def test_the_scheduler_is_asked_once_and_not_at_every_look(clock: Clock) -> None:
    scheduler = Scheduler(NOW + 100)
    deadline = begin(scheduler)
    for _ in range(50):
        deadline.reason(got(), 1.0, 0.1)
    assert scheduler.asked == 1


# --- signals ---


def test_usr2_with_a_known_end_stops_nothing_and_reads_the_end_once_more(clock: Clock) -> None:
    scheduler = Scheduler(NOW + 1000)
    deadline = begin(scheduler)
    for _ in range(3):
        assert deadline.reason(got("SIGUSR2"), 1.0, 0.1) is None
    assert scheduler.asked == 2


def test_usr2_at_a_preemption_tells_that_the_end_has_moved(clock: Clock) -> None:
    scheduler = Scheduler(NOW + 1000)
    deadline = begin(scheduler)
    scheduler.end = NOW + 5
    assert deadline.reason(got(), 1.0, 0.1) is None
    assert deadline.reason(got("SIGUSR2"), 1.0, 0.1) == "terminated"


def test_usr2_when_the_scheduler_is_silent_now_keeps_the_end_that_was_known(clock: Clock) -> None:
    scheduler = Scheduler(NOW + 1000)
    deadline = begin(scheduler)
    scheduler.end = None
    assert deadline.reason(got("SIGUSR2"), 1.0, 0.1) is None
    clock.now = NOW + 1000
    assert deadline.reason(got("SIGUSR2"), 1.0, 0.1) == "walltime"


def test_usr2_with_an_end_that_was_never_known_is_all_there_is_and_stops(clock: Clock) -> None:
    assert begin(Scheduler(None), walltime=1000).reason(got("SIGUSR2"), 1.0, 0.1) == "walltime"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_term_stops_now_whatever_the_clock_says(clock: Clock, name: str) -> None:
    scheduler = Scheduler(NOW + 1e6)
    deadline = begin(scheduler)
    assert deadline.reason(got(name), 1.0, 0.1) == "terminated"
    clock.now = NOW + 1e6
    assert deadline.reason(got("SIGUSR2", name), 1.0, 0.1) == "terminated"


# --- real signals ---


@pytest.fixture
def restored() -> Iterator[None]:
    numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCONT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored")
def test_signals_are_noted_in_order_with_their_time_and_end_nothing() -> None:
    signals = Signals()
    signals.install()
    began = time.time()
    for number in (signal.SIGCONT, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert [name for name, _ in signals.seen] == ["SIGUSR2", "SIGTERM", "SIGUSR2"]
    assert all(began - 1 <= moment <= time.time() for _, moment in signals.seen)
    assert (signals.count("SIGUSR2"), signals.count("SIGTERM", "SIGINT"), signals.count("SIGINT")) == (2, 1, 0)


# --- what Slurm tells a job of itself ---


def test_a_job_knows_its_id_and_a_requeued_one_its_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert (slurm_job_id(), slurm_attempt()) == (None, 1)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert (slurm_job_id(), slurm_attempt()) == ("4711", 3)
