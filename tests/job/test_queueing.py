"""The queue behind a running job: as many jobs as the run still needs, and a last look before the job ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hpcft.errors import Fault, UserError
from hpcft.job import queueing
from hpcft.job.queueing import Queueing
from hpcft.rundir import RunDir


class Looks:
    """Stands where sbatch would be called: what the chain was asked for, and how often."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.fails = 0
        self.one_more = threading.Semaphore(0)

    def __call__(self, run: RunDir, number: int, needed: int | None) -> list[object]:
        self.asked.append(needed)
        self.one_more.release()
        if len(self.asked) <= self.fails:
            raise UserError(Fault("sbatch", "is away."))
        return []


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(queueing.chain, "top_up", looks)
    return looks


def test_a_job_looks_at_once_and_when_it_is_about_to_end(looks: Looks, tmp_path: Path) -> None:
    needed = iter([None, 3])
    queue = Queueing(RunDir(tmp_path), 1, lambda: next(needed))
    queue.start()
    assert looks.one_more.acquire(timeout=5)
    queue.look()
    queue.close(5.0)
    assert looks.asked == [None, 3], "what was asked for is done before the end"


def test_a_scheduler_that_was_away_is_asked_again(
    looks: Looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queueing, "ASK_AGAIN", 0.05)
    looks.fails = 2
    queue = Queueing(RunDir(tmp_path), 1, lambda: None)
    queue.start()
    for _ in range(3):
        assert looks.one_more.acquire(timeout=5)
    begun = time.monotonic()
    queue.close(5.0)
    assert time.monotonic() - begun < 4 and len(looks.asked) == 3
    assert capsys.readouterr().err.count("no job could be queued behind this one: sbatch: is away.") == 2
