"""The handover: a job that Slurm has started gets the run from one that still lives."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.job import handover
from hpcft.rundir import RunDir

HOLDER = """
import sys, time
from pathlib import Path
from hpcft.job.handover import claimed_by_later
from hpcft.disk import write_json
from hpcft.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
job = run.job(1)
lock = run.lock
assert lock.take()
print("mine", flush=True)
while not (sys.argv[2] == "polite" and claimed_by_later(run, job)):
    write_json(job.path / "heartbeat.json", {"time": time.time()})
    time.sleep(0.05)
"""


def holder(run: RunDir, manner: str) -> subprocess.Popen[str]:
    """Another process that holds the run as job 1, and ends when it is asked to if it is polite."""
    run.job(1).path.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, run.path, manner], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "mine\n"
    return process


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "demo")


def test_the_job_before_is_asked_to_end_and_the_run_is_ours(run: RunDir) -> None:
    other, lock = holder(run, "polite"), run.lock
    try:
        assert handover.take_lock(lock, run, run.job(1, 2), lambda: False)
        assert other.wait(5) == 0
    finally:
        other.kill()
        lock.drop()


def test_only_a_later_job_or_attempt_can_claim(run: RunDir) -> None:
    run.path.mkdir()
    assert not handover.claimed_by_later(run, run.job(3))
    write_json(run.path / "claim.json", {"number": 3, "attempt": 1})
    assert handover.claimed_by_later(run, run.job(2, 4))
    assert not handover.claimed_by_later(run, run.job(3)) and not handover.claimed_by_later(run, run.job(3, 2))


@pytest.mark.slow
def test_one_that_is_told_to_end_while_it_waits_gives_up(run: RunDir) -> None:
    other = holder(run, "deaf")
    try:
        begun = time.monotonic()
        assert not handover.take_lock(run.lock, run, run.job(2), lambda: time.monotonic() - begun > 1.5)
        assert time.monotonic() - begun < 10
    finally:
        other.kill()


def test_a_silent_holder_is_not_waited_for_long(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    other = holder(run, "deaf")
    try:
        monkeypatch.setattr(handover, "PATIENCE", 1.0)
        monkeypatch.setattr(handover, "SILENCE", -1.0)
        assert not handover.take_lock(run.lock, run, run.job(2), lambda: False)
    finally:
        other.kill()
