"""The promise: a run cut by Slurm's walltime and by SIGKILL ends with the weights and the curve of one uncut job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hpcft.cli.looking import job_curves
from hpcft.curves.points import Points
from hpcft.curves.reader import read_points
from hpcft.curves.stitch import stitch
from hpcft.curves.view import View
from hpcft.rundir import JobDir, RunDir
from tests.slurm.lab import Lab
from tests.slurm.pace import slow_env
from tests.slurm.runs import Site, is_training, kill_job, leaves_nothing, make_site, processes_of

PROCESSES = (1, 2, 4)
STEPS = 340
SAVE_EVERY = 40
PATIENCE = 480.0


@dataclass(frozen=True)
class Pair:
    """The same recipe as a chain and as one job."""

    lab: Lab
    chain: RunDir
    killed: JobDir
    """The job whose processes all got SIGKILL."""
    victims: int
    uncut: RunDir


def recipe(processes: int) -> dict[str, object]:
    """Eight rows a step in two micro-batches on each process."""
    train = {"steps": STEPS, "micro_batch_size": 4 // processes, "save_every": SAVE_EVERY}
    resources = {"processes": processes, "walltime": "0:02:00"}
    return {"train": train, "resources": resources, "evaluate": {"every": 100}}


@pytest.fixture(scope="module")
def pairs(slurm: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Pair]]:
    """By number of processes; all at once, since a job of two minutes takes two minutes."""
    folder = tmp_path_factory.mktemp("chain")
    env = slow_env(folder / "env")
    sites = {number: make_site(folder / f"{number}", slurm, recipe(number)) for number in PROCESSES}
    for site in sites.values():
        site.submit(f"env={env}")
    site = sites[PROCESSES[-1]]
    site.wait("all jobs to train", lambda: all(is_training(each.run().job(1)) for each in sites.values()), 90)
    uncut = {number: submit_uncut(site, number) for number, site in sites.items()}
    killed: dict[int, tuple[JobDir, int]] = {}
    deadline = time.monotonic() + PATIENCE
    while not all(run.finished for run in (*uncut.values(), *(site.run() for site in sites.values()))):
        for number, site in sites.items():
            if number not in killed and (job := ripe(site.run())):
                killed[number] = job, len(kill_job(slurm, job.slurm_id or ""))
        halted = [site.describe() for site in sites.values() if site.run().halted]
        assert not halted and time.monotonic() < deadline, "\n".join(halted or map(Site.describe, sites.values()))
        time.sleep(0.2)
    for run in (*uncut.values(), *(site.run() for site in sites.values())):
        leaves_nothing(slurm, run)  # finished.json comes a moment before the job's own ending
    yield {number: Pair(slurm, site.run(), *killed[number], uncut[number]) for number, site in sites.items()}


def submit_uncut(site: Site, processes: int) -> RunDir:
    """The recipe as one long job: on this machine without Slurm for one process, in Slurm for more."""
    cluster = ["--cluster", "local"] if processes == 1 else []
    longer = ["--set", "name=uncut", "--set", "resources.walltime=1:00:00"]
    site.hpcft("submit", str(site.recipe), *longer, *cluster)
    return site.run("uncut")


def ripe(run: RunDir) -> JobDir | None:
    """The running job if it follows another, has trained, and would lose steps by a kill."""
    job = next((job for job in reversed(run.jobs()) if job.started and not job.ended), None)
    beat = (job.heartbeat or {}) if job else {}
    first, last = beat.get("first_step"), beat.get("last_step", 0)
    return job if job and job.number > 1 and first and last - first >= 8 and last % SAVE_EVERY >= 5 else None


@pytest.mark.parametrize("processes", PROCESSES)
def test_the_chain_was_cut_by_walltime_and_by_a_kill(pairs: dict[int, Pair], processes: int) -> None:
    pair = pairs[processes]
    ended = {job.number: job.ended or {} for job in pair.chain.jobs() if job.started}
    first, last = ended[1], ended[max(ended)]
    assert first["ending"] == "walltime"
    assert "SIGUSR2" in [name for name, _ in first["signals"]]
    assert ended[pair.killed.number]["ending"] == "killed"
    assert ended[pair.killed.number]["found_by"] == "the next job"
    resumed = pair.chain.job(pair.killed.number + 1).resumed or {}
    assert resumed["step"] < ended[pair.killed.number]["last_step"], "the kill lost steps, which are trained again"
    assert resumed["exactness"] == "bit-exact"
    assert pair.victims >= 1 + processes * 3  # supervisor, workers, and two data loaders each
    assert last["ending"] == "finished" and len(ended) >= 3
    assert [job.ended["ending"] for job in pair.uncut.jobs() if job.started and job.ended] == ["finished"]


@pytest.mark.parametrize("processes", PROCESSES)
def test_the_end_of_the_job_is_trained_in_and_not_given_away(pairs: dict[int, Pair], processes: int) -> None:
    """Slurm's signal comes 40 to 100 s before the end; the clock decides."""
    job = pairs[processes].chain.job(1)
    assert job.started and job.ended and job.started["end_known"]
    assert 0.0 < job.started["end"] - job.ended["time"] < 15.0


@pytest.mark.parametrize("processes", PROCESSES)
def test_the_weights_equal_those_of_one_job(pairs: dict[int, Pair], processes: int) -> None:
    pair = pairs[processes]
    weights = [(run.final_model / "model.safetensors").read_bytes() for run in (pair.chain, pair.uncut)]
    assert weights[0] == weights[1]
    assert weights[0] != (pair.chain.path.parents[1] / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("tag", ["train/loss", "train/gradient_norm", "train/learning_rate", "validation/loss"])
@pytest.mark.parametrize("processes", PROCESSES)
def test_the_curve_equals_that_of_one_job(pairs: dict[int, Pair], processes: int, tag: str) -> None:
    cut, uncut = (stitch(job_curves(run)).curve(tag) for run in (pairs[processes].chain, pairs[processes].uncut))
    assert cut.steps.tolist() == uncut.steps.tolist()
    assert cut.values.tolist() == uncut.values.tolist()
    if tag == "train/loss":
        assert cut.steps.tolist() == list(range(1, STEPS + 1))


@pytest.mark.parametrize("processes", PROCESSES)
def test_tensorboard_shows_that_curve_and_the_job_of_each_step(
    pairs: dict[int, Pair], processes: int, tmp_path: Path
) -> None:
    pair = pairs[processes]
    jobs = job_curves(pair.chain)
    stitched = View(tmp_path / "view").poll(jobs)

    def shown(name: str) -> Points:
        return read_points(tmp_path / "view" / name).curves["train/loss"]

    whole = shown("stitched")
    assert (np.diff(whole.steps) > 0).all()
    assert whole.values.tolist() == stitch(job_curves(pair.uncut)).curve("train/loss").values.tolist()
    beyond = 0
    for segment in stitched.kept("train/loss"):
        points, first = shown(segment.job.label), segment.job.resume_step or 0
        assert (np.diff(points.steps) > 0).all()
        own = points.steps > first
        # One bridge point joins a job's line to the one before; all others are steps that this job trained.
        assert (~own).sum() == (1 if first else 0)
        assert points.steps[own].tolist() == list(range(first + 1, int(points.steps[-1]) + 1))
        assert first == beyond
        beyond = int(points.steps[-1])
    assert beyond == STEPS


@pytest.mark.parametrize("processes", PROCESSES)
def test_no_process_is_left(pairs: dict[int, Pair], processes: int) -> None:
    pair = pairs[processes]
    assert leaves_nothing(pair.lab, pair.chain) and leaves_nothing(pair.lab, pair.uncut)
    assert processes_of(pair.lab, pair.killed.slurm_id or "") == []
