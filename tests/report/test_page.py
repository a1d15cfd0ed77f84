"""The report: what it says, what it leaves out, and how it looks in a browser without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.browser import NEEDS_CHROMIUM, Browser, browser
from tests.desk import Desk, make_desk
from tests.report.chain import SECRETS, make_run

__all__ = ["browser"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = make_desk(tmp_path, monkeypatch)
    make_run(desk.folder / "runs")
    return desk


def words(page: Path) -> str:
    """What is read on a page, without its script."""
    text = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_a_report_says_how_the_run_went_and_where_it_came_from(desk: Desk) -> None:
    said = desk.run("report", "demo", "--runs", "runs")
    assert (said.code, said.out, said.err) == (0, "runs/demo/report.html\n", "")
    text = words(desk.folder / "runs/demo/report.html")
    for expected in (
        "demo finished gpt2-small on the task corpus , 100 of 100 steps",
        "Still learning: the validation loss fell by",
        "59% of the GPU time of the jobs went into useful steps.",
        "Useful steps steps that led to the model, less the waits for rows in them 30:00 59.2%",
        "Waiting for rows in those steps: the card had nothing to do 3:20 6.6%",
        "Together 50:40 100%",
        "3 jobs on 3 nodes; 5:00 in the queue, 1:40 each on average, 1:40 at most.",
        "1 4711 gpu001 2 × Tesla V100-SXM2-32GB",
        "1:40 10:00 1–40 10 60% killed all its processes were killed: its node failed",
        "2 4712 gpu002 unknown",
        "none – 0% crashed gpt2-small: the model does not load",
        "--set train.learning_rate=1e-5",
        "train texts.csv – – 12.3 MB abababababababab of its first and last MiB",
        "torch 2.13.0",
        "cluster orfeo, GPU",
        "git c0ffeec0ffee",
    ):
        assert expected in text, (expected, text)


def test_a_report_names_no_paths_no_user_and_no_address(desk: Desk) -> None:
    desk.run("report", "demo", "--runs", "runs", "-o", "out/a.html")
    text = (desk.folder / "out/a.html").read_text()
    assert [secret for secret in SECRETS if secret in text] == []
    assert str(desk.folder) not in text


def test_a_run_that_has_not_begun_has_a_report_too(desk: Desk) -> None:
    run = RunDir(desk.folder / "runs/new")
    run.job(1).path.mkdir(parents=True)
    recipe = {"name": "new", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    write_json(run.path / "recipe.json", recipe)
    write_json(run.path / "submission.json", {"cluster": {"name": "here", "kind": "local", "runs": "x"}, "env": "/e"})
    write_json(run.job(1).path / "submitted.json", {"slurm_id": "local1", "walltime": 60, "time": 0})
    write_json(run.path / "queued.json", {"time": 0})
    assert desk.run("report", "new", "--runs", "runs").code == 0
    text = words(run.path / "report.html")
    assert "Nothing to judge: no training loss yet." in text and "Curves" not in text and "Jobs" not in text


def test_a_report_that_cannot_be_written_says_why(desk: Desk) -> None:
    said = desk.run("report", "demo", "--runs", "runs", "-o", "train.jsonl/a.html")
    assert (said.code, said.out) == (2, "")
    assert said.err == "hpcft: -o: train.jsonl/a.html cannot be written: not a directory. Name another place.\n"
    said = desk.run("report", "demo", "--runs", "runs", "-o", "a.pdf")
    assert (said.code, said.err) == (2, "hpcft: -o: a.pdf: a report is .html, not '.pdf'.\n")


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_a_report_is_whole_without_a_network(desk: Desk, browser: Browser) -> None:
    desk.run("report", "demo", "--runs", "runs")
    browser.open(desk.folder / "runs/demo/report.html")
    assert browser.texts("h2") == ["Curves", "Where the GPU time went", "Jobs", "Data", "Recipe", "Made with"]
    assert browser.texts(".legend:not(.notes) li") == ["1. 4711 (1-40, killed)", "3. 4713 (41-100, finished)"]
    widths = [part.size["width"] for part in browser.all(".bar span")]
    whole = browser.one(".bar").size["width"]
    shares = [1800, 200, 100, 40, 440, 210, 250]
    assert widths == pytest.approx([share / 3040 * whole for share in shares], abs=2)
    page = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert page[0] <= page[1], "nothing sticks out at the side"
    assert browser.faults() == []
