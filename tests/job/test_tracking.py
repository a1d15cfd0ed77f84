"""The processes beside the workers: deaf to the scheduler, ended by the supervisor, and gone when their time is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.job.tracking import NICE, Tracking
from hpcft.rundir import RunDir
from tests.promise import descendants


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[Tracking]:
    """That of a job that has saved nothing, so that there is nothing to hand on."""
    run = RunDir(tmp_path / "demo")
    job = run.job(1)
    job.path.mkdir(parents=True)
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 9}, "track": {"to": ["wandb", "mlflow"]}})
    with Tracking(run, job, run.recipe, internet=False) as made:
        made.start(os.environ)
        yield made


def test_signals_of_the_scheduler_end_no_tracker_and_the_end_of_its_stdin_does(tracking: Tracking) -> None:
    processes = [*tracking._processes]
    assert [os.getpriority(os.PRIO_PROCESS, each.pid) for each in processes] == [min(19, os.nice(0) + NICE)] * 2
    for each in processes:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            os.kill(each.pid, number)
    time.sleep(0.2)
    assert [each.poll() for each in processes] == [None, None]
    tracking.end(60.0)
    assert [each.returncode for each in processes] == [0, 0]


def test_one_that_hangs_is_killed_when_the_time_is_up(tracking: Tracking) -> None:
    pids = [each.pid for each in tracking._processes]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    tracking.end(0.5)
    assert time.monotonic() - started < 30
    assert not {*pids} & {*descendants(os.getpid())}
