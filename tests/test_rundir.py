"""A run is a directory: facts written whole, a lock that dies with its holder, and names found by prefix."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.errors import UserError
from hpcft.rundir import Lock, RunDir, find_run, find_runs, locked, make_root, read_json, write_json, write_whole


def make_run(root: Path, name: str) -> RunDir:
    (root / name).mkdir(parents=True)
    write_json(root / name / "recipe.json", {})
    return RunDir(root / name)


# --- facts ---


def test_a_fact_is_read_as_it_was_written_and_one_never_written_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "fact.json", {"b": [1, None], "a": "ü"})
    assert read_json(tmp_path / "fact.json") == {"a": "ü", "b": [1, None]}
    assert read_json(tmp_path / "other.json") is None
    assert [path.name for path in tmp_path.iterdir()] == ["fact.json"]
    assert (tmp_path / "fact.json").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_fact_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fact.json"
    write_whole(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["fact.json"]


def test_a_reader_beside_a_killed_writer_sees_one_whole_fact_or_another(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    write_json(path, {"number": 0, "same": 0})
    code = (
        "import sys; from pathlib import Path; from hpcft.rundir import write_json\n"
        "for number in range(10**9): write_json(Path(sys.argv[1]), {'number': number, 'same': number}, durable=False)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        seen = set()
        while len(seen) < 50:
            fact = read_json(path)
            assert fact is not None
            assert fact["number"] == fact["same"]
            seen.add(fact["number"])
            assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    fact = read_json(path)
    assert fact is not None
    assert fact["number"] == fact["same"]


# --- the lock ---

HOLDER = """
import sys, time
from pathlib import Path
from hpcft.rundir import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.take()
print("mine", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_keeps_nothing(tmp_path: Path, end: signal.Signals) -> None:
    lock = Lock(tmp_path / "lock")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    assert lock.held()
    assert not lock.take()
    assert not lock.take(patience=0.2)
    holder.send_signal(end)
    assert lock.take(patience=5.0)
    holder.wait()
    holder.stdout.close()
    lock.drop()
    assert not lock.held()


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "import subprocess; subprocess.Popen(['sleep', '60'], stdout=-3)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, timeout=20)
    assert done.stdout == b"mine\n"
    assert Lock(tmp_path / "lock").take()


def test_one_holder_at_a_time_and_the_next_after_it_let_go(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert not first.held()
    assert first.take()
    assert first.held()
    assert second.held()
    with locked(tmp_path / "lock") as mine:
        assert not mine
    first.drop()
    with locked(tmp_path / "lock") as mine:
        assert mine
        assert not second.take()
    assert second.take()


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
