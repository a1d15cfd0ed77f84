"""Where the time went: parts that are true to the records and add up to all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcft.curves.runcurves import read_run
from hpcft.disk import read_json, write_json
from hpcft.launch.status import Answer, RunStatus, read_status
from hpcft.report.account import PARTS, account
from hpcft.rundir import RunDir
from tests.report.chain import make_run


def status_of(run: RunDir) -> RunStatus:
    return read_status([run], Answer({}, slurm_silent=False))[0]


def test_every_second_of_each_job_has_one_place(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    status = status_of(run)
    spent = account(status.jobs, read_run(run))
    nothing = dict.fromkeys(PARTS, 0.0)
    # Of 50 steps and 5 evaluations 10 and 1 were made again; what is left of 600 s nobody wrote down.
    assert spent.jobs[1, 1] == pytest.approx(
        {**nothing, "computing": 360, "rows": 40, "evaluation": 20, "again": 105, "start": 50, "unknown": 25}
    )
    assert spent.jobs[2, 1] == pytest.approx({**nothing, "start": 120}), "it never came to train"
    assert spent.jobs[3, 1] == pytest.approx(
        {**nothing, "computing": 540, "rows": 60, "evaluation": 30, "saving": 20, "start": 50, "unknown": 100}
    )
    assert spent.on_cards and spent.total == 2 * (600 + 120 + 800)
    assert spent.parts["computing"] == 2 * (360 + 540)
    assert spent.total / 3600 == pytest.approx(status.gpu_hours_used)


def test_without_cards_the_hours_are_those_of_the_jobs(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    status = status_of(run)
    jobs = [replace(job, gpu_hours=0.0) for job in status.jobs]
    spent = account(jobs, read_run(run))
    assert not spent.on_cards and spent.total == 600 + 120 + 800


def test_what_nobody_recorded_is_called_so_and_an_idle_job_had_nothing_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for number, ending in ((2, "idle"), (3, "finished")):
        path = run.job(number).path / "ended.json"
        ended = read_json(path) or {}
        write_json(
            path,
            {key: ended[key] for key in ("time", "wall_seconds", "last_step") if key in ended} | {"ending": ending},
        )
    spent = account(status_of(run).jobs, read_run(run))
    assert spent.jobs[2, 1]["idle"] == 120
    assert spent.jobs[3, 1]["unknown"] == 800, "a record of an hpcft that counted no seconds"
    assert spent.total == 2 * (600 + 120 + 800)
