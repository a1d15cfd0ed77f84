"""Seconds at the prompt, on a private Slurm, beside bare submitit doing the same."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.benchmarks.rows import Row, beside, seconds
from tests.slurm.lab import Lab
from tests.slurm.runs import HPCFT, Site, calls, counting, make_site, queue

CHAIN = 10
RUNS = 200
JOBS = 10
"""Jobs of each run that has finished: 2,000 in all."""
LIVE_RUNS = 8
LATER = "now+1hour"
"""No job of a benchmark may start: it would compete with what is measured."""

PEER_CHAIN = f"""
import sys, submitit
job = None
executor = submitit.SlurmExecutor(folder=sys.argv[1])
for number in range({CHAIN}):
    if len(sys.argv) > 2:
        executor = submitit.SlurmExecutor(folder=sys.argv[1])
    more = {{"begin": "{LATER}", "hold": True}}
    more |= {{"dependency": f"afterany:{{job.job_id}}"}} if job else {{}}
    executor.update_parameters(time=10, partition="GPU", additional_parameters=more)
    job = executor.submit(print, number)
"""
PEER_STATES = """
import sys, submitit
jobs = [submitit.SlurmJob(folder=sys.argv[1], job_id=number) for number in sys.argv[2:]]
print([job.state for job in jobs])
"""


def help_row() -> Row:
    """`hpcft --help`, which loads all verbs, beside the import of submitit alone."""
    ours, peer = beside(
        lambda: seconds([HPCFT, "--help"], os.environ),
        lambda: seconds([sys.executable, "-c", "import submitit"], os.environ),
        times=7,
    )
    return Row("hpcft --help, beside `import submitit`", ours, peer, "under 0.25 s", ours < 0.25, "s")


def launcher_rows(folder: Path) -> Iterator[Row]:
    """The rows that need a Slurm, which lives in this folder."""
    lab = Lab(folder / "lab", dies_with_parent=True)
    lab.folder.mkdir()
    lab.start()
    try:
        yield from submit_rows(lab, folder)
        yield from status_rows(lab, folder)
    finally:
        lab.stop()


def submit_rows(lab: Lab, folder: Path) -> Iterator[Row]:
    """A chain of ten, beside ten submitit jobs that wait for each other.

    One executor waits 0.2 s between two submits. With a new one for each job it does not, and what is left is what
    checking a recipe, copying the code and writing every record to disk costs beside the sbatch calls.
    """
    site = make_site(
        folder / "chain", lab, {"resources": {"jobs": CHAIN, "queued": CHAIN - 1}}, options={"begin": LATER}
    )

    def tidy() -> None:
        assert len(queue(lab)) == CHAIN, queue(lab)
        lab.run("scancel", *queue(lab))

    bare = [sys.executable, "-c", PEER_CHAIN, str(folder / "peer")]
    ours, peer = beside(
        lambda: seconds([HPCFT, "submit", site.recipe], site.environment(), tidy),
        lambda: seconds(bare, lab.environment, tidy),
        times=5,
    )
    yield Row(f"submit of a chain of {CHAIN} jobs", ours, peer, "under 1.5 times", ours < 1.5 * peer, "s")
    ours, peer = beside(
        lambda: seconds([HPCFT, "submit", site.recipe], site.environment(), tidy),
        lambda: seconds([*bare, "an executor a job"], lab.environment, tidy),
        times=5,
    )
    yield Row("the same, beside submitit without its pauses", ours, peer, "under 1 s", ours < 1.0, "s")


def status_rows(lab: Lab, folder: Path) -> Iterator[Row]:
    """All runs in one call, beside submitit asked for the state of one job of each."""
    site = make_site(folder / "status", lab, options={"begin": LATER})
    make_runs(site)
    array = lab.run("sbatch", "--parsable", "--hold", f"--array=1-{RUNS}", "--output=/dev/null", "--wrap", "true")
    jobs = [f"{array}_{number}" for number in range(1, RUNS + 1)]
    path = counting(folder / "count")
    answer = json.loads(site.hpcft("status", "--json", PATH=path))
    assert len(answer["runs"]) == RUNS
    found = {run["state"] for run in answer["runs"]}
    assert found == {"queued", "finished", "broken off"}, found
    asked = [line.split()[0] for line in calls(folder / "count")]
    peer_command = [sys.executable, "-c", PEER_STATES, str(folder / "peer"), *jobs]
    seconds(peer_command, {**lab.environment, "PATH": path})
    asked_by_peer = calls(folder / "count")
    holds = asked.count("squeue") == 1 and asked.count("sacct") <= 1 and len(asked) <= 2
    goal = "one squeue, at most one sacct"
    yield Row(f"questions to Slurm for {RUNS} runs", len(asked), len(asked_by_peer), goal, holds, "calls")
    ours, peer = beside(
        lambda: seconds([HPCFT, "status"], site.environment()),
        lambda: seconds(peer_command, lab.environment),
        times=5,
    )
    yield Row(f"status of {RUNS} runs, beside {RUNS} jobs", ours, peer, "under 1 s", ours < 1.0, "s")


def make_runs(site: Site) -> None:
    """All runs: some wait in the queue, one was cancelled by hand, and the others have finished in ten jobs each."""
    runs = [site.submit() for _ in range(LIVE_RUNS)]
    by_hand = site.submit()
    site.lab.run("scancel", *queue(site.lab, by_hand))
    done = site.submit()
    site.lab.run("scancel", *queue(site.lab, done))
    now = time.time()
    given = json.loads((done.job(1).path / "submitted.json").read_text())
    for number in range(1, JOBS + 1):
        path, last = done.job(number).path, 50 * number
        path.mkdir(exist_ok=True)
        write_json(path / "submitted.json", {**given, "after": [str(number)]})
        write_json(path / "started.json", {"time": now, "host": "gpu1", "node": "gpu1", "saved_step": None})
        write_json(path / "resumed.json", {"step": last - 50, "total_steps": 500, "exactness": "bit-exact"})
        write_json(path / "heartbeat.json", {"time": now, "phase": "train", "last_step": last})
        facts = {"first_step": last - 49, "last_step": last, "loss": 1.5, "seconds": {"train": 60.0}, "time": now}
        ending = "walltime" if number < JOBS else "finished"
        write_json(path / "ended.json", {**facts, "ending": ending, "wall_seconds": 70.0})
    write_json(done.path / "finished.json", {"step": 500, "time": now, "job": 1, "tokens": 1000})
    runs += [by_hand, done]
    for number in range(len(runs), RUNS):
        copy = RunDir(done.path.with_name(f"done-{number}"))
        shutil.copytree(done.path, copy.path)
