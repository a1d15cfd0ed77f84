"""A submit killed at any instant, and run again, gives one run with one whole chain: no half, no double."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcft.rundir import RunDir, find_runs
from tests.slurm.lab import Lab
from tests.slurm.processes import eventually
from tests.slurm.runs import HPCFT, Site, is_training, leaves_nothing, make_site, queue, wrappers

JOBS = 3
KILL_CALLER = "kill -9 $PPID"


@pytest.fixture(scope="module")
def site(slurm: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a chain of three jobs that cannot start: no node is so large."""
    return make_site(
        tmp_path_factory.mktemp("killed"),
        slurm,
        {"resources": {"queued": JOBS - 1}},
        options={"nodelist": "gpu1", "begin": "now+1hour"},
    )


@pytest.fixture(autouse=True)
def clean(site: Site) -> Iterator[None]:
    """No run and no job before and after each test."""
    yield
    if found := queue(site.lab):
        site.lab.run("scancel", *found)
    subprocess.run(["rm", "-rf", str(site.runs)], check=True)


def submit_and_die(site: Site, path: str = "", delay: float | None = None) -> int:
    """Exit code of a submit that gets SIGKILL, from a wrapper on this PATH or after a delay."""
    variables = {"PATH": path} if path else {}
    process = subprocess.Popen(
        [HPCFT, "submit", str(site.recipe)],
        env=site.environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if delay is not None:
        time.sleep(delay)
        process.kill()
    return process.wait()


def assert_one_whole_chain(site: Site, jobs: int = JOBS) -> RunDir:
    """One run; its jobs, each behind all before it, released, and nothing else in the queue."""
    (run,) = find_runs(site.runs)
    assert run.name == "tiny" and [path.name for path in site.runs.iterdir()] == ["tiny"]
    records = [job for job in run.jobs() if job.submitted and not job.ended]
    ids = [job.slurm_id or "" for job in records]
    assert len(ids) == jobs
    assert set(queue(site.lab)) == set(ids), "nothing in the queue but what the run knows"
    found = queue(site.lab, run)
    for place, number in enumerate(ids):
        state, dependency = found[number]
        assert state == "PENDING"
        assert set(re.findall(r"afterany:(\d+)", dependency)) == set(ids[:place])
    assert "0" not in site.lab.run("squeue", "--noheader", "--format=%Q").split(), "none is held"
    assert site.status(run)["state"] == "queued"
    return run


WRAPPERS = {
    "before the first sbatch": {"sbatch": KILL_CALLER},
    "after the first sbatch": {"sbatch": f'$REAL "$@" > /dev/null; {KILL_CALLER}'},
    "while sbatch is slow": {"sbatch": f'{KILL_CALLER}; sleep 1; exec $REAL "$@"'},
    "before the second sbatch": {"sbatch": f'grep -q tiny-001 ${{!#}} || {KILL_CALLER}; exec $REAL "$@"'},
    "after the second sbatch": {"sbatch": f'$REAL "$@" > $0.$$; grep -q tiny-001 ${{!#}} || {KILL_CALLER}; cat $0.$$'},
    "after the last sbatch": {"sbatch": f'$REAL "$@" > $0.$$; grep -q tiny-003 ${{!#}} && {KILL_CALLER}; cat $0.$$'},
    "before the release": {"scontrol": KILL_CALLER},
    "after the release": {"scontrol": f'$REAL "$@"; {KILL_CALLER}'},
}


@pytest.mark.parametrize("instant", list(WRAPPERS))
def test_a_submit_killed_at_this_instant_is_completed_by_the_next(site: Site, tmp_path: Path, instant: str) -> None:
    assert submit_and_die(site, wrappers(tmp_path / "bin", WRAPPERS[instant])) == -signal.SIGKILL
    assert "queued in" in site.hpcft("submit", str(site.recipe))
    assert_one_whole_chain(site)


@pytest.mark.parametrize("instant", ["before the first sbatch", "after the second sbatch", "before the release"])
def test_a_submit_killed_at_this_instant_is_shown_and_completed_by_resume(
    site: Site, tmp_path: Path, instant: str
) -> None:
    submit_and_die(site, wrappers(tmp_path / "bin", WRAPPERS[instant]))
    (run,) = find_runs(site.runs)
    status = site.status(run)
    assert status["state"] == "half-submitted" and "hpcft resume tiny" in status["note"]
    site.hpcft("resume", run.name)
    assert_one_whole_chain(site)


def test_a_submit_killed_half_way_is_undone_by_cancel(site: Site, tmp_path: Path) -> None:
    submit_and_die(site, wrappers(tmp_path / "bin", WRAPPERS["after the second sbatch"]))
    site.hpcft("cancel", "tiny")
    assert not queue(site.lab) and not list(site.runs.iterdir())


def test_a_submit_killed_half_way_gives_way_to_a_changed_recipe(site: Site, tmp_path: Path) -> None:
    submit_and_die(site, wrappers(tmp_path / "bin", WRAPPERS["after the second sbatch"]))
    site.hpcft("submit", str(site.recipe), "--set", "train.seed=7")
    assert assert_one_whole_chain(site).recipe.train.seed == 7


def test_a_resume_killed_before_the_release_is_completed_by_the_next(site: Site, tmp_path: Path) -> None:
    run = site.submit()
    site.hpcft("stop", run.name)
    path = wrappers(tmp_path / "bin", WRAPPERS["before the release"])
    killed = subprocess.run([HPCFT, "resume", run.name], env=site.environment(PATH=path), capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert site.status(run)["state"] == "half-submitted"
    site.hpcft("resume", run.name)
    assert_one_whole_chain(site)
    assert "is queued already" in site.hpcft("resume", run.name, code=2)


def test_a_submit_killed_at_any_delay_leaves_one_run_or_none(site: Site) -> None:
    """Delays spread over the whole of a submit, finest where it talks to Slurm."""
    started = time.monotonic()
    site.submit()
    whole = time.monotonic() - started
    site.hpcft("cancel", "tiny")
    subprocess.run(["rm", "-rf", str(site.runs)], check=True)
    outcomes = []
    for part in range(24):
        code = submit_and_die(site, delay=whole * part / 20)
        if code == 0:
            assert_one_whole_chain(site)
        else:
            site.hpcft("submit", str(site.recipe))
            runs = find_runs(site.runs)
            # Killed between its last write and its exit, the first submit had come to its end: that is a run too.
            if len(runs) == 2:
                site.hpcft("cancel", "tiny-2")
                subprocess.run(["rm", "-rf", str(runs[1].path)], check=True)
            assert_one_whole_chain(site)
        outcomes.append(code)
        site.lab.run("scancel", *queue(site.lab))
        subprocess.run(["rm", "-rf", str(site.runs)], check=True)
    assert -signal.SIGKILL in outcomes


def test_what_sbatch_says_is_shown_and_nothing_is_left(slurm: Lab, tmp_path: Path) -> None:
    site = make_site(tmp_path, slurm, options={"mail-type": "SOMETIMES"})
    words = site.hpcft("submit", str(site.recipe), code=2)
    assert words.startswith("hpcft: sbatch: ") and "Invalid --mail-type specification" in words
    assert len(words.splitlines()) <= 2
    assert not list(site.runs.iterdir()) and not queue(site.lab)


def test_sbatch_failing_for_the_second_job_leaves_nothing(site: Site, tmp_path: Path) -> None:
    body = (
        'grep -q tiny-001 ${!#} || { echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }; exec $REAL "$@"'
    )
    path = wrappers(tmp_path / "bin", {"sbatch": body})
    words = site.hpcft("submit", str(site.recipe), code=2, PATH=path)
    assert "QOSMaxSubmitJobPerUserLimit" in words
    assert not list(site.runs.iterdir()) and not queue(site.lab)


@pytest.mark.parametrize("moment", ["record", "release"])
def test_a_job_killed_in_the_middle_of_its_top_up_leaves_what_resume_heals(
    slurm: Lab, tmp_path: Path, moment: str
) -> None:
    """The supervisor of job 2 dies after its sbatch of job 3: before it has recorded it, or before the release."""
    flag = tmp_path / "armed"
    script = {
        "record": {"sbatch": f'$REAL "$@" > $0.$$; [ -e {flag} ] && rm {flag} && {KILL_CALLER}; cat $0.$$'},
        "release": {"scontrol": f'[ -e {flag} ] && rm {flag} && {KILL_CALLER} && exit; exec $REAL "$@"'},
    }[moment]
    path = wrappers(tmp_path / "bin", script)
    site = make_site(tmp_path / "site", slurm, setup=[f"export PATH={path.split(':')[0]}:$PATH"])
    run = site.submit()
    site.wait("job 1 to train", lambda: is_training(run.job(1)), seconds=90)
    flag.touch()
    slurm.run("scancel", run.job(1).slurm_id or "")
    site.wait("job 2 to die", lambda: not flag.exists() and len(queue(slurm, run)) == 1, seconds=60)
    (third,) = queue(slurm, run)
    assert (third in {job.slurm_id for job in run.jobs()}) == (moment == "release")
    assert slurm.run("squeue", "--noheader", "--format=%T %Q", f"--jobs={third}") == "PENDING 0"
    assert site.status(run)["state"] == {"record": "broken off", "release": "half-submitted"}[moment]
    site.hpcft("resume", run.name)
    assert (third in queue(slurm, run)) == (moment == "release")
    last = run.jobs()[-2]
    site.wait("the chain to go on", lambda: is_training(last), seconds=90)
    assert len(queue(slurm, run)) == 2
    dead = run.job(2).ended
    assert dead and dead["ending"] == "killed"
    site.hpcft("cancel", run.name)
    assert leaves_nothing(slurm, run)


def test_two_submits_at_once_are_two_whole_runs(site: Site) -> None:
    both = [subprocess.Popen([HPCFT, "submit", str(site.recipe)], env=site.environment()) for _ in range(2)]
    try:
        assert [process.wait(60) for process in both] == [0, 0]
    finally:
        for process in both:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    names = [run.name for run in find_runs(site.runs)]
    assert names == ["tiny", "tiny-2"]
    assert all(len(queue(site.lab, run)) == JOBS for run in find_runs(site.runs))
    assert eventually(lambda: len(queue(site.lab)) == 2 * JOBS, seconds=1)
