"""Every verb on a real Slurm: what it does to the queue, to the run and to its processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcft.cli.looking import job_curves
from hpcft.curves.stitch import stitch
from hpcft.launch import chain
from tests.slurm.lab import Lab
from tests.slurm.runs import Site, calls, counting, is_training, leaves_nothing, make_site, processes_of, queue
from tests.standins import OURS, PACKAGES, make_venv


@pytest.fixture
def site(slurm: Lab, tmp_path: Path) -> Iterator[Site]:
    """A site whose recipe trains for ever; what a test leaves in the queue is cancelled."""
    site = make_site(tmp_path, slurm)
    yield site
    if ids := [number for number, _ in queue(slurm).items()]:
        slurm.run("scancel", *ids)


def wait_for_training(site: Site, number: int = 1, steps: int = 5) -> None:
    job = site.run().job(number)
    site.wait(f"job {number} to train", lambda: is_training(job, steps), seconds=90)


def test_submit_status_stop_resume_and_cancel(site: Site, tmp_path: Path) -> None:
    """The life of a run in the verbs of its user; what each asks of Slurm is counted."""
    run = site.submit()
    path = counting(tmp_path / "count")
    wait_for_training(site)

    status = site.status(run)
    answer = site.hpcft("status", PATH=path)
    asked = [line.split()[0] for line in calls(tmp_path / "count")]
    assert asked.count("squeue") == 1 and asked.count("sacct") <= 1 and len(asked) <= 2
    assert run.name in answer and "running" in answer
    assert {key: status[key] for key in ("name", "dir", "state", "total_steps")} == {
        "name": "tiny", "dir": str(run.path), "state": "running", "total_steps": 100_000,
    }  # fmt: skip
    assert status["step"] >= 5 and status["phase"] == "train" and status["tokens_per_second"] > 0
    first, second = status["jobs"]
    assert first["slurm_id"] == run.job(1).slurm_id and first["node"].startswith("gpu")
    assert (first["number"], first["state"], first["ending"], first["first_step"]) == (1, "RUNNING", None, 1)
    assert 1 <= first["last_step"] <= status["step"] + 50
    assert (second["number"], second["state"], second["first_step"]) == (2, "PENDING", None)
    assert second["reason"] == "waits for the job before it"

    assert "is running already" in site.hpcft("resume", run.name, code=2)
    site.hpcft("stop", run.name)
    assert list(queue(site.lab, run)) in ([], [first["slurm_id"]]), "the queued job is gone at once"
    site.wait("the job to stop", lambda: run.job(1).ended is not None)
    assert leaves_nothing(site.lab, run)
    status = site.status(run)
    assert (status["state"], status["jobs"][0]["ending"]) == ("stopped", "stopped")
    assert run.saved_steps()[-1] == status["jobs"][0]["last_step"] == status["step"] == status["saved_step"]
    assert f"`hpcft resume {run.name}` goes on" in status["note"]

    site.hpcft("resume", run.name)
    third = run.job(3)
    assert [job.number for job in run.jobs()] == [1, 2, 3, 4]
    wait_for_training(site, 3)
    assert third.resumed and third.resumed["step"] == status["saved_step"]
    assert third.resumed["exactness"] == "bit-exact"
    assert "goes on at step" in site.hpcft("logs", run.name) and "==> job003-" in site.hpcft("logs", run.name)
    assert "begins at step 0" in site.hpcft("logs", run.name, "--job", "1")

    calls(tmp_path / "count")
    site.hpcft("cancel", run.name, PATH=path)
    cancelled = [line.split() for line in calls(tmp_path / "count") if line.startswith("scancel")]
    assert len(cancelled) == 1 and set(cancelled[0][1:]) == {third.slurm_id, run.job(4).slurm_id}
    assert leaves_nothing(site.lab, run)
    assert [job.number for job in run.jobs() if job.started] == [1, 3], "no other job has started"
    status = site.status(run)
    assert status["state"] == "cancelled" and "hpcft resume" in status["note"]
    assert [job["ending"] for job in status["jobs"]] == ["stopped", "cancelled", "terminated", "cancelled"]


def test_a_finished_run_is_not_resumed(site: Site) -> None:
    run = site.submit("train.steps=8", "evaluate.every=4", "resources.processes=2")
    site.wait("the run to finish", lambda: run.finished is not None, seconds=90)
    assert leaves_nothing(site.lab, run), "the job behind the last one leaves the queue"
    status = site.status(run)
    assert (status["state"], status["step"], status["jobs"][0]["ending"]) == ("finished", 8, "finished")
    assert "is finished" in site.hpcft("resume", run.name, code=2)
    assert "Nothing is left to stop." in site.hpcft("stop", run.name, code=2)
    assert [job.number for job in run.jobs()] == [1, 2] and not queue(site.lab, run)

    said = site.hpcft("evaluate", run.name, "--split", "validation", "--on-cluster", "--walltime", "0:05:00")
    report = json.loads((run.evaluation / "validation-model.json").read_text())
    curve = stitch(job_curves(run)).curve("validation/loss")
    assert report["rows"] == 20 and report["loss"] == pytest.approx(float(curve.values[-1]), rel=1e-4)
    assert f"{run.evaluation}: validation-model.json, validation-model.parquet" in said
    assert not queue(site.lab) and not list(site.runs.glob(".debug-*"))


def test_after_scancel_of_one_job_the_next_goes_on(site: Site) -> None:
    run = site.submit()
    wait_for_training(site)
    site.lab.run("scancel", run.job(1).slurm_id or "")
    wait_for_training(site, 2)
    first, second = run.job(1), run.job(2)
    assert first.ended and first.ended["ending"] == "terminated" and first.ended["signals"][0][0] == "SIGTERM"
    assert second.resumed and second.resumed["step"] == first.ended["last_step"] == first.ended["saved_step"]
    assert processes_of(site.lab, first.slurm_id or "") == []

    # Then every job by hand: the run is broken off, and resumes although records of dead jobs are left.
    site.lab.run("scancel", *queue(site.lab, run))
    assert leaves_nothing(site.lab, run)
    assert site.status(run)["state"] == "broken off"
    site.hpcft("resume", run.name)
    wait_for_training(site, 4)
    assert [job.number for job in run.jobs() if job.started] == [1, 2, 4]


def test_no_more_jobs_are_queued_than_the_site_takes_and_the_run_needs(site: Site) -> None:
    with (site.folder / "lab.yaml").open("a") as file:
        file.write("max_submit: 5\n")
    hold = ("sbatch", "--parsable", "--hold", "-o", "/dev/null", "--wrap", "true")
    mine = [site.lab.run(*hold)]
    run = site.submit("resources.queued=4", "resources.memory=240G")  # so much that only one job fits a node
    assert len(queue(site.lab, run)) == 4, "with the one that is there already, five"
    wait_for_training(site)
    chain.top_up(run, 1, needed=2)
    site.wait("the surplus to leave", lambda: len(queue(site.lab, run)) == 3)
    assert [(job.ended or {}).get("ending") for job in run.jobs()] == [None, None, None, "cancelled"]
    mine += [site.lab.run(*hold)]
    refused = site.hpcft("submit", str(site.recipe), "--set", "name=refused", code=2)
    assert refused == (
        "hpcft: cluster lab: takes 5 jobs of a user, and 5 of yours are in the queue."
        " Try again when one of them has ended.\n"
    )
    assert not site.run("refused").path.exists()
    site.lab.run("scancel", *mine)
    site.hpcft("cancel", run.name)
    assert leaves_nothing(site.lab, run)


def test_a_model_that_broke_after_the_submit_halts_the_chain(site: Site) -> None:
    with (site.folder / "lab.yaml").open("a") as file:
        file.write("setup: [sleep 4]\n")  # time to break the model before the job reads it
    run = site.submit("resources.queued=2")
    shutil.rmtree(site.folder / "model")
    site.wait("the chain to halt", lambda: run.halted is not None, seconds=120)
    assert leaves_nothing(site.lab, run), "what was queued is cancelled"
    status = site.status(run)
    assert status["state"] == "halted"
    assert str(site.folder / "model") in status["note"]
    assert sum(job["ending"] in ("crashed", "refused") for job in status["jobs"]) <= 2
    shutil.rmtree(run.path)


def test_an_env_that_loses_torch_halts_the_chain_in_the_next_job_and_is_refused_then(
    site: Site, tmp_path: Path
) -> None:
    env = make_venv(tmp_path / "env", more=False)
    for path in (OURS / PACKAGES).iterdir():
        if not path.name.startswith(("_", ".")) and path.suffix != ".pth":
            (env / PACKAGES / path.name).symlink_to(path)
    with (site.folder / "lab.yaml").open("a") as file:  # gone when the job begins
        file.write(f"setup: ['rm -f {env / PACKAGES}/torch {env / PACKAGES}/accelerate']\n")
    run = site.submit(f"env={env}")
    site.wait("the chain to halt", lambda: run.halted is not None, seconds=60)
    assert leaves_nothing(site.lab, run)
    status = site.status(run)
    assert status["state"] == "halted" and status["jobs"][0]["ending"] == "refused"
    assert f"missing in the env {env}: torch, accelerate. Install them there, then resume." in status["note"]
    assert not run.job(2).started
    refused = f"the env {env} has no torch, accelerate, which training needs. Run `{env}/bin/python -m pip install"
    assert refused in site.hpcft("submit", str(site.recipe), "--set", f"env={env}", code=2)
    assert refused in site.hpcft("resume", run.name, code=2)


def test_a_lost_scheduler_is_said_and_the_job_trains_on(site: Site) -> None:
    run = site.submit()
    wait_for_training(site)
    before = run.job(1).heartbeat or {}
    site.lab.stop_daemons(["slurmctld"])
    try:
        status = site.status(run)
        assert (status["state"], status["note"]) == ("unknown", "Slurm does not answer.")
        assert "does not say" in site.hpcft("resume", run.name, code=2)
        assert "squeue" in site.hpcft("cancel", run.name, code=2)
        assert not run.stop_file.exists(), "a cancel that could not be said has changed nothing"
        site.wait("more steps", lambda: is_training(run.job(1), before["last_step"] + 20))
    finally:
        site.lab.start_daemon("slurmctld")
    site.wait("Slurm to be back", lambda: site.status(run)["state"] == "running")
    site.hpcft("cancel", run.name)
    assert leaves_nothing(site.lab, run)
