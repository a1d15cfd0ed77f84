"""The ending of a job: the records that others write for a job that could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.ending import ENDINGS, MAY_RETURN, NEUTRAL, STATES, close_gone, close_waiting, last_granted, write_ending
from hpcft.rundir import JobDir, RunDir


@pytest.fixture
def job(tmp_path: Path) -> JobDir:
    job = RunDir(tmp_path / "demo").job(1)
    job.path.mkdir(parents=True)
    return job


def started(job: JobDir, saved: int | None = 20) -> None:
    write_json(job.path / "started.json", {"time": 100.0, "saved_step": saved})
    write_json(job.path / "heartbeat.json", {"time": 160.0, "last_step": 33, "loss": 2.5, "phase": "train"})


def test_a_killed_job_keeps_what_its_heartbeat_said(job: JobDir) -> None:
    started(job)
    close_gone(job, 30, "the next job")
    assert job.ended == {
        "last_step": 33,
        "loss": 2.5,
        "ending": "killed",
        "time": 160.0,
        "found_by": "the next job",
        "progress": True,
        "reason": "all its processes were killed",
        "fix": "See `hpcft logs`.",
    }


@pytest.mark.parametrize(("newest", "progress"), [(30, True), (20, False), (None, False)])
def test_it_made_progress_only_if_it_saved(job: JobDir, newest: int | None, progress: bool) -> None:
    started(job)
    close_gone(job, newest, "the next job")
    assert job.ended and job.ended["progress"] is progress


def test_a_job_that_never_came_to_its_first_line_made_none(job: JobDir) -> None:
    close_gone(job, 30, "keeper")
    ended = job.ended or {}
    assert (ended["ending"], ended["progress"], ended["reason"]) == ("killed", False, "it never came to its first line")


def test_what_slurm_says_of_it_is_kept_in_its_own_word_and_in_ours(job: JobDir) -> None:
    started(job)
    close_gone(job, None, "the next job", "NODE_FAIL", "gpu003")
    ended = job.ended or {}
    assert (ended["slurm_state"], ended["node"]) == ("NODE_FAIL", "gpu003")
    assert ended["reason"] == "all its processes were killed: its node failed"


def test_a_job_that_was_cancelled_while_it_waited_was_not_killed(job: JobDir) -> None:
    close_gone(job, None, "the next job", "CANCELLED")
    assert job.ended and job.ended["ending"] == "cancelled"


def test_a_job_that_has_begun_is_not_closed_as_one_that_waited(job: JobDir) -> None:
    started(job)
    close_waiting(job)
    assert job.ended is None


def test_every_ending_has_its_words(job: JobDir) -> None:
    assert {*NEUTRAL, *MAY_RETURN} < set(ENDINGS) and STATES
    with pytest.raises(ValueError, match="no ending: kiled"):
        write_ending(job, "kiled")


def test_a_job_that_hpcft_took_out_again_is_not_taken_off_the_grant(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo")
    model, data = {"path": "/m"}, {"train": "/t.jsonl"}
    for number in range(1, 5):
        run.job(number).path.mkdir(parents=True)
    recipe = {"name": "demo", "task": "corpus", "model": model, "data": data, "resources": {"jobs": 4}}
    write_json(run.path / "recipe.json", recipe)
    assert last_granted(run) == 4
    close_waiting(run.job(3))  # by hand
    close_waiting(run.job(4), found_by="hpcft")
    assert last_granted(run) == 5
    write_json(run.path / "resume.json", {"after": 2, "submitted": 4})
    assert last_granted(run) == 8
