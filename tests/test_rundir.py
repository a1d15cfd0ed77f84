"""A run is a directory: facts written whole, a lock that dies with its holder, and names found by prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.errors import UserError
from hpcft.rundir import RunDir, find_run, find_runs, make_root


def make_run(root: Path, name: str) -> RunDir:
    (root / name).mkdir(parents=True)
    write_json(root / name / "recipe.json", {})
    return RunDir(root / name)


# --- jobs ---


def test_jobs_come_in_order_with_the_attempts_of_a_requeued_one_and_nothing_else(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.jobs() == []
    for name in ("010", "002", "002.10", "002.2", "1000", "7", "002.x", "tmp", ".003"):
        (run.jobs_folder / name).mkdir(parents=True)
    assert [(job.number, job.attempt) for job in run.jobs()] == [(2, 1), (2, 2), (2, 10), (10, 1), (1000, 1)]
    assert [run.job(job.number, job.attempt) for job in run.jobs()] == run.jobs()


def test_an_attempt_shares_the_submission_of_its_job_and_has_its_own_label(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path).job(2), RunDir(tmp_path).job(2, 2)
    for job in (first, second):
        job.path.mkdir(parents=True)
    assert (first.label, second.label) == ("job002-none", "job002-none.2")
    write_json(first.path / "submitted.json", {"slurm_id": "4711"})
    write_json(second.path / "started.json", {"time": 1})
    assert (first.label, second.label) == ("job002-4711", "job002-4711.2")
    assert (first.slurm_id, second.slurm_id) == ("4711", "4711")
    assert (first.started, second.started) == (None, {"time": 1})


def test_saved_steps_are_those_with_a_manifest(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.saved_steps() == []
    for name in ("step-9", "step-000100", "step-20"):
        (run.checkpoints / name).mkdir(parents=True)
    for name in ("step-9", "step-000100"):
        write_json(run.checkpoints / name / "manifest.json", {})
    assert run.saved_steps() == [9, 100]


# --- the folder of all runs ---


def test_a_run_is_found_by_its_name_or_by_a_prefix_that_fits_only_it(tmp_path: Path) -> None:
    demo, second, other = (make_run(tmp_path, name) for name in ("demo", "demo-2", "other"))
    make_run(tmp_path, ".new-0123")
    (tmp_path / "no-run").mkdir()
    assert find_runs(tmp_path) == [demo, second, other]
    assert find_run(tmp_path, "demo") == demo  # its whole name, though another begins with it
    assert find_run(tmp_path, "demo-") == second
    assert find_run(tmp_path, "o") == other


def test_a_prefix_of_two_runs_or_of_none_says_which_there_are(tmp_path: Path) -> None:
    for name in ("demo-1", "demo-2", "other"):
        make_run(tmp_path, name)
    with pytest.raises(UserError) as refusal:
        find_run(tmp_path, "demo")
    assert str(refusal.value) == "demo: fits 2 runs: demo-1, demo-2. Write more of the name."
    with pytest.raises(UserError) as refusal:
        find_run(tmp_path, "sst2")
    assert str(refusal.value) == f"sst2: no run of this name in {tmp_path}. There: demo-1, demo-2, other."
    with pytest.raises(UserError) as refusal:
        find_run(tmp_path / "gone", "sst2")
    assert str(refusal.value) == f"sst2: no run of this name in {tmp_path}/gone. There: none."


def test_the_folder_of_runs_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    make_root(tmp_path / "a/runs")
    assert (tmp_path / "a/runs").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "a/runs").iterdir()) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [("file/runs", "not a directory"), ("/proc/runs", "no such file or directory"), ("file", "file exists")],
)
def test_a_folder_of_runs_that_cannot_be_written_is_refused(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as refusal:
        make_root(tmp_path / place)
    fix = "Name another folder with --runs or HPCFT_RUNS."
    assert str(refusal.value) == f"{tmp_path / place}: no run directory can be made here: {reason}. {fix}"
