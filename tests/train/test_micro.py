"""micro_batch_size: auto: found once, kept in every job, and without a change in what is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import read_json
from hpcft.train import hostmemory
from hpcft.train.estimate import USABLE, parts
from hpcft.train.loop import micro_batches
from hpcft.train.saving import Saver
from hpcft.train.step import one_step
from tests.train.pieces import begin, digest, make_run

AUTO = {"micro_batch_size": "auto", "batch_size": 8}


def memory(patch: pytest.MonkeyPatch, size: float) -> None:
    patch.setattr(hostmemory, "available", lambda: int(size))


@pytest.mark.slow
def test_the_largest_divisor_of_the_batch_that_has_room_is_taken_and_the_batch_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tmp_path / "run", AUTO)
    takes = {rows: sum(parts(run.recipe, rows).values()) / USABLE for rows in (1, 2, 4, 8)}
    for rows, most in ((8, takes[8]), (4, takes[8] - 1), (1, takes[2] - 1), (1, 1000)):
        memory(monkeypatch, most + 1)
        training = begin(run)
        assert training.share.micro_batch_size == rows
        assert len(training.share.step_rows(0)) == 8
        (run.path / "micro_batch.json").unlink()


def test_later_jobs_take_what_the_first_found_whatever_memory_they_have_and_stay_bit_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, *ends: int) -> str:
        """Weights and moments of a run whose jobs end with these steps."""
        run = make_run(tmp_path, tmp_path / name, AUTO)
        memory(monkeypatch, sum(parts(run.recipe, 4).values()) / USABLE + 1)
        for number, end in enumerate(ends, 1):
            training = begin(run, number)
            batches = micro_batches(training)
            for step in range(training.position.step, end):
                one_step(training, batches, step)
                training.position.step = step + 1
            Saver(training, None).last()
            assert training.share.micro_batch_size == 4
            assert (read_json(training.job.path / "resumed.json") or {})["exactness"] == "bit-exact"
            memory(monkeypatch, 1000)
        return digest(training)

    assert train("cut", 2, 4) == train("uncut", 4)
