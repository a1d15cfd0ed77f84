"""A run on two nodes of two processes: stopped, robbed of a worker and of a node, and still the same run."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcft.rundir import JobDir, RunDir
from tests.promise import outcome
from tests.slurm.lab import Lab
from tests.slurm.runs import Site, is_training, leaves_nothing, make_site, processes_of

STEPS = 250
WORKER = b"hpcft.train.worker"


def recipe(nodes: int) -> dict[str, Any]:
    """Eight rows a step on four processes."""
    return {
        "train": {"steps": STEPS, "batch_size": 8, "micro_batch_size": 1, "save_every": 100},
        "data": {"workers": 0},
        "resources": {"nodes": nodes, "processes": 4 // nodes},
    }


@dataclass(frozen=True)
class Story:
    """What was done to the run on two nodes, and what was seen."""

    many: RunDir
    one: RunDir
    """The same recipe on one node, never cut."""
    variables: list[dict[str, str]]
    """Of the workers of the first job."""
    seconds_to_end: dict[str, float]
    """From what was done to ended.json."""


def on_node(lab: Lab, job: JobDir, node: str, *, workers: bool = True) -> list[int]:
    """Processes of a job on a node: its workers, or all."""
    found = []
    for process in processes_of(lab, job.slurm_id or ""):
        if environment(process).get("SLURMD_NODENAME") == node:
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            found += [process] if not workers or WORKER in command else []
    return found


def environment(process: int) -> dict[str, str]:
    """A process's variables."""
    text = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
    return dict(line.partition("=")[::2] for line in text.split("\0") if "=" in line)


def the_running(run: RunDir) -> JobDir | None:
    """The job that has begun and not ended."""
    return next((job for job in run.jobs() if job.started and not job.ended), None)


def wait_for_steps(site: Site, steps: int = 8) -> JobDir:
    """The running job, once it has done so many steps of its own."""
    site.wait("a job to train", lambda: bool((job := the_running(site.run())) and is_training(job, steps)), 90)
    job = the_running(site.run())
    assert job
    return job


def time_to_end(site: Site, job: JobDir) -> float:
    """Seconds until it has written its ending."""
    begun = time.monotonic()
    site.wait(f"job {job.number} to end", lambda: job.ended is not None, 60)
    return time.monotonic() - begun


def parent(process: int) -> int:
    """The process that started it."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def story(slurm: Lab, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("nodes")
    many, one = (make_site(folder / name, slurm, recipe(nodes)) for name, nodes in (("many", 2), ("one", 1)))
    run, uncut, seconds = many.submit(), one.submit(), {}
    job = wait_for_steps(many)
    workers = [each for node in slurm.node_names for each in on_node(slurm, job, node)]
    variables = [environment(process) for process in workers]
    many.hpcft("stop", "tiny")
    seconds["stop"] = time_to_end(many, job)
    many.hpcft("resume", "tiny")

    job = wait_for_steps(many)
    slurm.stop_daemons(["slurmd.gpu2"], kill=True)
    there = on_node(slurm, job, "gpu2", workers=False)
    for process in {*there, *map(parent, there)} - {1}:  # slurmstepd too: it has started what holds the workers
        os.kill(process, signal.SIGKILL)
    seconds["node"] = time_to_end(many, job)
    slurm.start_daemon("slurmd.gpu2")
    many.wait("both to finish", lambda: bool(run.finished and uncut.finished), 150)
    assert leaves_nothing(slurm, run) and leaves_nothing(slurm, uncut)
    return Story(run, uncut, variables, seconds)


def test_each_of_four_processes_has_its_rank_on_its_node(story: Story) -> None:
    places = [(each["SLURMD_NODENAME"], each["RANK"], each["LOCAL_RANK"]) for each in story.variables]
    assert sorted(places) == [("gpu1", "0", "0"), ("gpu1", "1", "1"), ("gpu2", "2", "0"), ("gpu2", "3", "1")]
    assert {each["WORLD_SIZE"] for each in story.variables} == {"4"}
    assert len({(each["MASTER_ADDR"], each["MASTER_PORT"], each["PYTHONPATH"]) for each in story.variables}) == 1
    assert not any("GLOO_SOCKET_IFNAME" in each for each in story.variables)


def test_a_stop_reaches_every_process_and_a_lost_node_ends_the_job_in_seconds(story: Story) -> None:
    first, second, third = (job.ended or {} for job in story.many.jobs() if job.started)
    assert first["ending"] == "stopped" and first["saved_step"] == first["last_step"] > 0
    assert second["ending"] == "killed" and second["node"] == "gpu2" and second["rank"] == 2
    assert second["reason"] == "the node gpu2 was lost: nothing is heard of it"
    assert third["ending"] == "finished"
    assert story.seconds_to_end["stop"] < 10 and story.seconds_to_end["node"] < 25


def test_the_run_on_two_nodes_is_that_of_one_job_on_one_node(story: Story) -> None:
    resumed = [job.resumed or {} for job in story.many.jobs() if job.started]
    assert [each["exactness"] for each in resumed] == ["bit-exact"] * 3
    assert resumed[1]["step"] == resumed[2]["step"] > 0, "the steps of the job that lost its node were done again"
    assert outcome(story.many) == outcome(story.one)
    assert len([job for job in story.one.jobs() if job.started]) == 1
