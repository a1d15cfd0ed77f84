"""Whole runs in phases on this machine: killed around the border, and verified across it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpcft.disk import read_json
from hpcft.rundir import RunDir
from tests.browser import NEEDS_CHROMIUM, Browser, browser
from tests.promise import (
    hpcft,
    is_over,
    job_tree,
    kill,
    make_parts,
    make_recipe,
    outcome,
    run_whole,
    running_job,
    wait_for,
)

__all__ = ["browser"]
pytestmark = pytest.mark.slow
BORDER, STEPS = 9, 16


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    make_parts(folder, rows=60)
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    tests = [json.dumps({**row, "answer": ("Yes", "No")[number % 2]}) for number, row in enumerate(rows)]
    (folder / "test.jsonl").write_text("\n".join(tests))
    return folder


def make_phased(folder: Path, name: str) -> Path:
    """The small recipe in two phases, tested at the end of each, with a checkpoint every other step."""
    path = make_recipe(folder, name, STEPS)
    values = yaml.safe_load(path.read_text())
    values["phases"] = [
        {"name": "full", "data": {"loss_on": "full"}, "train": {"steps": BORDER}},
        {"name": "completion", "train": {"steps": STEPS - BORDER, "learning_rate": 5e-4, "batch_size": 8}},
    ]
    values["data"]["test"] = "test.jsonl"
    values["evaluate"] = {"every": 5, "choices": ["Yes", "No"]}
    values["train"]["save_every"] = 2
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def uncut(parts: Path) -> RunDir:
    return run_whole(make_phased(parts, "uncut"), parts / "runs")


@pytest.fixture(scope="module")
def killed(parts: Path) -> RunDir:
    """The same run, killed before, at and behind the border of its phases."""
    done = hpcft("submit", make_phased(parts, "killed"), "--runs", parts / "runs")
    assert done.returncode == 0, done.stderr
    run = RunDir(parts / "runs" / "killed")
    moments = {
        "its last step is saved, and it is tested": lambda: BORDER in run.saved_steps(),
        "it is over": lambda: any(phase["over"] for phase in run.phases),
        "the next one trains": lambda: max(run.saved_steps(), default=0) > BORDER,
    }
    for moment, come in moments.items():
        wait_for(lambda come=come: come() or is_over(run), pause=0.002)
        assert not is_over(run), moment
        if job := running_job(run):
            kill(job_tree(job))
    wait_for(lambda: is_over(run))
    assert run.finished
    return run


def test_kills_before_at_and_behind_the_border_of_phases_make_no_difference(uncut: RunDir, killed: RunDir) -> None:
    run = killed
    assert [job.ended["ending"] for job in run.jobs() if job.started and job.ended].count("killed") >= 2
    assert outcome(run) == outcome(uncut)
    for name in ("before", "full", "completion", "after"):
        mine, theirs = (read_json(one.evaluation / f"{name}.json") or {} for one in (run, uncut))
        assert mine.pop("seconds") and theirs.pop("seconds") and mine == theirs


def test_steps_across_a_border_are_verified_and_status_names_the_phase(parts: Path, uncut: RunDir) -> None:
    found = hpcft("verify", "uncut", "--runs", parts / "runs", "--step", "0", "--steps", str(STEPS))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "uncut is bit-exact: 16 losses and gradient norms" in found.stdout
    assert f"hpcft: phase full is over at step {BORDER} of {STEPS}" in found.stdout
    status = json.loads(hpcft("status", "uncut", "--runs", parts / "runs", "--json").stdout)["runs"][0]
    assert (status["recipe_phase"], status["total_steps"]) == ("completion", STEPS)


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_the_report_of_a_cut_run_shows_its_jobs_phases_and_tests(killed: RunDir, browser: Browser) -> None:
    done = hpcft("report", "killed", "--runs", killed.path.parent)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    browser.open(killed.path / "report.html")
    jobs = [job for job in killed.jobs() if job.started]
    assert [line.split(" ")[0] for line in browser.texts("#jobs tbody tr")] == [str(job.number) for job in jobs]
    trained = {line.get_attribute("data-job") for line in browser.all("path.kept")}
    assert trained <= {job.label for job in jobs} and len(trained) >= 2
    assert browser.texts(".phase-name") == ["phase full", "completion"]
    tests = [line.split(" ")[:2] for line in browser.texts("#evaluation tbody tr")]
    assert tests == [["before", "0"], ["full", f"{BORDER}"], ["completion", f"{STEPS}"]]
    assert browser.run("return document.querySelector('#evaluation img').naturalWidth") > 400
    sums = [float(text.removesuffix(" s")) for text in browser.texts("#time .number") if text.endswith(" s")]
    walls = [float((job.ended or {}).get("wall_seconds") or 0.0) for job in jobs]
    assert sum(sums[:-1]) == pytest.approx(sums[-1], abs=0.01) and sums[-1] > sum(walls)
    page = (killed.path / "report.html").read_text()
    assert str(killed.path.parent) not in page and "torch" in browser.one("#env").text
    assert browser.faults() == []
