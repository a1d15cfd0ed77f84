"""The private Slurm that other tests stand on is a real one, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest

from tests.slurm import conftest, lab
from tests.slurm.lab import Lab, LabError
from tests.slurm.processes import job_processes


def test_every_node_is_idle_with_two_v100s(slurm: Lab) -> None:
    lines = slurm.run("sinfo", "-h", "-N", "-p", "GPU", "-o", "%N %G %c %m").splitlines()
    assert lines == ["gpu1 gpu:V100:2 24 250000", "gpu2 gpu:V100:2 24 250000"]
    assert slurm.run("sinfo", "-h", "-o", "%P").split() == ["GPU*", "debug", "preempt"]


def test_a_job_runs_with_the_gpus_it_asked_for_and_the_accounts_know_it(slurm: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = slurm.run(
        *("sbatch", "--parsable", "--gres=gpu:V100:2", f"--output={out}"),
        *("--wrap", "echo $CUDA_VISIBLE_DEVICES on $SLURMD_NODENAME"),
    )
    assert slurm.wait(job) == "COMPLETED"
    assert re.fullmatch(r"0,1 on gpu[12]\n", out.read_text())


def test_a_failing_job_is_failed(slurm: Lab, tmp_path: Path) -> None:
    job = slurm.run("sbatch", "--parsable", f"--output={tmp_path / 'out'}", "--wrap", "exit 3")
    assert slurm.wait(job) == "FAILED"


def test_a_node_taken_away_and_given_back_runs_jobs_again(slurm: Lab, tmp_path: Path) -> None:
    submit = ("sbatch", "--parsable", "--nodelist=gpu2", f"--output={tmp_path / 'out'}", "--wrap")
    job = slurm.run(*submit, "sleep 321")
    slurm.wait(job, ["RUNNING"])
    slurm.stop_daemons(["slurmd.gpu2"], kill=True)
    slurm.run("scontrol", "update", "NodeName=gpu2", "State=DOWN", "Reason=test")
    slurm.run("scancel", job)  # Slurm has queued it again; with its node gone it would wait for two minutes
    slurm.start_daemon("slurmd.gpu2")
    slurm.run("scontrol", "update", "NodeName=gpu2", "State=RESUME")
    assert slurm.wait(slurm.run(*submit, "true")) == "COMPLETED"


def test_waiting_for_a_state_that_does_not_come_says_which_one_there_is(slurm: Lab, tmp_path: Path) -> None:
    job = slurm.run("sbatch", "--parsable", "--hold", f"--output={tmp_path / 'out'}", "--wrap", "true")
    try:
        slurm.wait(job, ["PENDING"])  # the accounts learn of it seconds later on a busy machine
        with pytest.raises(LabError, match=f"waited 1 s for job {job} to be one of COMPLETED .it is: PENDING"):
            slurm.wait(job, ["COMPLETED"], seconds=1)
    finally:
        slurm.run("scancel", job)


def test_down_stops_every_process_and_the_running_jobs_with_them() -> None:
    conftest.need_slurm()
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        call = [sys.executable, "-m", "tests.slurm.lab"]
        root = Path(__file__).parents[2]
        up = subprocess.run([*call, "up", name, "--nodes", "1"], cwd=root, capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
        assert up.stdout.splitlines()[1:] == [
            "gpu1 idle gpu:V100:2 24 250000",
            f"export SLURM_CONF={name}/etc/slurm.conf",
        ]
        started = lab.opened(folder)
        assert sorted(started.daemons) == ["mariadbd", "munged", "slurmctld", "slurmd.gpu1", "slurmdbd"]
        job = started.run("sbatch", "--parsable", f"--output={folder / 'out'}", "--wrap", "trap '' TERM; sleep 321")
        started.wait(job, ["RUNNING"])

        down = subprocess.run([*call, "down", name], cwd=root, capture_output=True, text=True)
        assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
        assert processes_that_mention(name) == []
        assert job_processes(started.folder) == []


def test_a_lab_whose_start_fails_leaves_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    conftest.need_slurm()
    monkeypatch.setattr(lab, "SLURMDBD_CONF", Template("nonsense=$folder\n"))
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp", ignore_cleanup_errors=True) as name:
        broken = Lab(Path(name))
        monkeypatch.setattr(lab.Lab, "_wait_until", impatient(lab.Lab._wait_until))
        with pytest.raises(LabError, match=r"slurmdbd.*not running: slurmdbd"):
            broken.start()
        assert processes_that_mention(name) == []


def test_a_folder_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    conftest.need_slurm()
    with pytest.raises(LabError, match="longer than 80 characters"):
        Lab(tmp_path / ("x" * 80)).start()


def test_missing_programs_skip_by_hand_and_fail_in_continuous_integration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conftest, "missing_programs", lambda: ["slurmctld"])
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs slurmctld: run tests/install-system-packages as root"):
        conftest.need_slurm()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs slurmctld"):
        conftest.need_slurm()


def impatient(wait: Callable[..., None]) -> Callable[..., None]:
    """The same wait, at most five seconds of it."""
    return lambda *args, **options: wait(*args, **(options | {"seconds": 5}))


def processes_that_mention(text: str) -> list[str]:
    """The command lines of running processes that hold a text, ours aside."""
    found: list[str] = []
    for _ in range(20):  # what was killed this moment may still be listed
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    where = str((folder / "cwd").readlink())
                except OSError:
                    continue
                if text in line or where.startswith(text):
                    found.append(f"{line} in {where}")
        if not found:
            break
        time.sleep(0.1)
    return found
