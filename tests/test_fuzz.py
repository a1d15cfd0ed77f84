"""The promise under fire: whatever is killed, whenever, the run ends with the same weights and the same curve."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from hpcft.disk import read_json
from hpcft.launch import local
from hpcft.rundir import RunDir
from tests.promise import (
    descendants,
    hpcft,
    is_over,
    job_tree,
    kill,
    make_parts,
    make_recipe,
    outcome,
    run_whole,
    running_job,
    trains,
    wait_for,
)

pytestmark = pytest.mark.slow
STEPS = 600
KILLS = 20


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    make_parts(folder)
    return folder


@pytest.fixture(scope="module")
def uncut(parts: Path) -> RunDir:
    return run_whole(make_recipe(parts, "uncut", STEPS), parts / "runs")


def strike(run: RunDir, chance: random.Random) -> str | None:
    """Kill something of the running job at a moment of some kind; what it was, or None if the job was faster."""
    job = running_job(run)
    if job is None:
        return None
    moment = chance.choice(["start", "step", "step", "save"])
    if moment == "start":
        time.sleep(chance.uniform(0.0, 3.0))
    else:
        wait_for(lambda: trains(job) or job.ended or is_over(run))
        time.sleep(chance.uniform(0.0, 0.5))
    if moment == "save":
        deadline = time.monotonic() + 3.0
        while not (writing := list(run.checkpoints.glob(".writing-*"))) and time.monotonic() < deadline:
            pass
        if not writing:
            return None
        time.sleep(chance.uniform(0.0, 0.004))
    victims = job_tree(job)
    if not victims or job.ended:
        return None
    victim = chance.choice(["supervisor", "worker", "all"])
    pids = {"supervisor": victims[:1], "worker": victims[1:2], "all": victims}[victim]
    inside = bool(list(run.checkpoints.glob(".writing-*")))
    kill(pids)
    wait_for(lambda: not local.is_running(job))
    return f"{moment}/{victim}{'/inside a save' if inside else ''}"


def test_twenty_random_kills_change_nothing(parts: Path, uncut: RunDir) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    runs = parts / "runs"
    assert hpcft("submit", make_recipe(parts, "cut", STEPS), "--runs", runs).returncode == 0
    run = RunDir(runs / "cut")
    strikes: list[str] = []
    while len(strikes) < KILLS and not is_over(run):
        wait_for(lambda: running_job(run) or is_over(run))
        if done := strike(run, chance):
            strikes.append(done)
    wait_for(lambda: is_over(run), seconds=300)
    print(strikes)
    assert run.finished, run.halted
    assert len(strikes) == KILLS, "the run was over before it was struck often enough: raise STEPS"
    assert any("inside a save" in words for words in strikes)
    assert outcome(run) == outcome(uncut)


def test_a_killed_keeper_needs_only_a_resume(parts: Path, uncut: RunDir) -> None:
    runs = parts / "runs"
    assert hpcft("submit", make_recipe(parts, "keeper", STEPS), "--runs", runs).returncode == 0
    run = RunDir(runs / "keeper")
    wait_for(lambda: (job := running_job(run)) and trains(job))
    job = running_job(run)
    assert job
    controller = _parent(job_tree(job)[0])
    keeper = _parent(controller)
    kill([keeper, *descendants(keeper)])
    wait_for(lambda: not local.is_running(job))
    assert hpcft("resume", "keeper", "--runs", runs, "--wait").returncode == 0
    assert (ended := read_json(job.path / "ended.json")) and ended["ending"] == "killed"
    assert outcome(run) == outcome(uncut)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_stop_and_a_kill_on_four_processes_end_as_one_job(parts: Path) -> None:
    runs, steps, processes = parts / "several", 160, 4
    whole = run_whole(make_recipe(parts, "whole", steps, processes), runs)
    recipe = make_recipe(parts, "pieces", steps, processes)
    assert hpcft("submit", recipe, "--runs", runs).returncode == 0
    run = RunDir(runs / "pieces")
    wait_for(lambda: (job := running_job(run)) and trains(job))
    assert hpcft("stop", "pieces", "--runs", runs).returncode == 0
    wait_for(lambda: running_job(run) is None)
    assert hpcft("resume", "pieces", "--runs", runs).returncode == 0
    wait_for(lambda: (job := running_job(run)) and trains(job))
    job = running_job(run)
    assert job
    kill(job_tree(job))
    wait_for(lambda: is_over(run) and running_job(run) is None, seconds=300)
    endings = [job.ended["ending"] for job in run.jobs() if job.started and job.ended]
    assert endings == ["stopped", "killed", "finished"]
    assert outcome(run) == outcome(whole)
