"""A matrix where the queue takes only some of its runs: the others follow by themselves."""

from __future__ import annotations

from pathlib import Path

from hpcft.rundir import RunDir
from tests.slurm.lab import Lab
from tests.slurm.runs import make_site, queue


def test_runs_that_have_no_room_in_the_queue_begin_when_others_end(slurm: Lab, tmp_path: Path) -> None:
    values = {"train": {"steps": 4}, "evaluate": {"every": 100}}
    site = make_site(tmp_path, slurm, values, max_submit=3)
    said = site.hpcft("submit", str(site.recipe), "--set", "matrix.train.seed=[1, 2, 3]")
    assert said.count("jobs 1 (") == 1 and said.count("waits until another run of the matrix ends") == 2
    first, second, third = (RunDir(site.runs / f"tiny-seed-{seed}") for seed in (1, 2, 3))
    assert site.status(third)["state"] == "waiting"
    site.hpcft("cancel", first.name)
    site.wait("the second run, once the first is cancelled", lambda: not second.waits)
    site.wait("the end of the second", lambda: bool(second.finished), 120)
    site.wait("the third run, once the second has finished", lambda: not third.waits)
    site.wait("the end of the third", lambda: bool(third.finished), 120)
    site.wait("an empty queue", lambda: not queue(slurm))
    assert first.finished is None
