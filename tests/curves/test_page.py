"""The page of curves: what it holds, and in a browser without a network what a reader sees and can do."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcft.curves.events import file_name, scalar_event, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.page import PIXELS, curves_data, write_curves
from hpcft.curves.runcurves import Best, Life, Phase, RunCurves
from hpcft.curves.stitch import JobCurve, stitch
from hpcft.curves.writer import CurveWriter
from tests.browser import NEEDS_CHROMIUM, Browser, browser
from tests.curves.chains import add_points, job_curve, log_job, three_jobs

__all__ = ["browser"]


def three(folder: Path, name: str = "demo", **more: Any) -> RunCurves:
    """Three jobs that lasted an hour each and were cut at 200 and 400, with a learning rate."""
    jobs = three_jobs(folder)
    for job, last in zip(jobs, (234, 430, 600), strict=True):
        steps = list(range((job.resume_step or 0) + 1, last + 1))
        add_points(job.directory, "train/learning_rate", steps, 0, 1e6 * job.number)
    return RunCurves(name, stitch(jobs), lives=lives(jobs), **more)


def lives(jobs: Sequence[JobCurve]) -> dict[str, Life]:
    endings = [*["killed"] * (len(jobs) - 1), "finished"]
    begins = [1e6 * job.number - 36 for job in jobs]
    return {job.label: Life(t, t + 3600, end) for job, t, end in zip(jobs, begins, endings, strict=True)}


def embedded(page: Path) -> dict[str, Any]:
    """The data of a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="drawn">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_a_page_holds_all_that_it_needs_and_asks_for_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.html"
    write_curves([three(tmp_path, "<b>&</script>")], out, "<b>&</script>")
    text = out.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|https?://(?!www\.w3\.org/2000/svg)""", text)
    assert "default-src 'none'" in text
    assert text.count("</script>") == 2, "no name of a run ends the element that it stands in"
    assert "<title>&lt;b&gt;&amp;&lt;/script&gt;</title>" in text
    assert embedded(out)["runs"][0]["name"] == "<b>&</script>"
    assert len(text) < 120_000


def test_values_that_are_no_numbers_are_words(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    job.directory.mkdir()
    values = [1.5, math.nan, math.inf, -math.inf, 2.5]
    events = [scalar_event("train/loss", value, step, 5.0) for step, value in enumerate(values, 1)]
    (job.directory / file_name(1)).write_bytes(encode_frames([version_event(5.0), *events]))
    (line,) = curves_data([RunCurves("demo", stitch([job]))])["runs"][0]["lines"]["train/loss"]
    assert line["values"] == [1.5, "NaN", "Infinity", "-Infinity", 2.5]


def test_a_long_run_stays_small_and_keeps_its_spike_its_first_and_its_last_point(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    job.directory.mkdir()
    values = np.random.default_rng(0).normal(size=60_000)
    values[12_345] = 99.0
    events = [scalar_event("train/loss", float(value), step, 5.0) for step, value in enumerate(values, 1)]
    (job.directory / file_name(1)).write_bytes(encode_frames([version_event(5.0), *events]))
    (line,) = curves_data([RunCurves("demo", stitch([job]))])["runs"][0]["lines"]["train/loss"]
    assert len(line["steps"]) <= 4 * (PIXELS + 1)
    assert {1, 12_346, 60_000} <= {*line["steps"]} and max(line["values"]) == 99.0


def test_tags_that_are_not_there_and_runs_without_a_loss_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'nothing is logged as "train/los"\. Did you mean "train/loss"\?'):
        write_curves([three(tmp_path)], tmp_path / "a.html", "demo", ["train/los"])
    with pytest.raises(ValueError, match="nothing to draw yet"):
        write_curves([RunCurves("empty", stitch([]))], tmp_path / "a.html", "demo")
    assert not (tmp_path / "a.html").exists()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one run, in two phases whose losses are of two kinds."""
    folder = tmp_path_factory.mktemp("one")
    phases = (Phase("full", 0, 300, False), Phase("completion", 300, 600, True))
    run = three(folder, phases=phases, best=Best(250, 2.025, "best/"))
    write_curves([run], folder / "one.html", "demo")
    return folder / "one.html"


def paths(seen: Browser, more: str = "") -> dict[tuple[str, str, bool], list[list[tuple[float, float]]]]:
    """The strokes of each line by tag, job, and whether it survives."""
    found = {}
    for tag, job, kind, drawn in seen.run(
        f"return [...document.querySelectorAll('.chart{more} path')].map("
        "p => [p.dataset.tag, p.dataset.job, p.getAttribute('class'), p.getAttribute('d')])"
    ):
        strokes = [re.findall(r"([-\d.]+),([-\d.]+)", stroke) for stroke in drawn.split("M")[1:]]
        points = [[(float(x), float(y)) for x, y in stroke] for stroke in strokes]
        found[tag, job, kind.startswith("kept")] = points
    return found


JOBS = ("job001-4701", "job002-4702", "job003-4703")


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_there_is_one_line_a_job_which_sets_out_where_the_one_before_ends(shown: Path, browser: Browser) -> None:
    browser.open(shown)
    lines = paths(browser)
    tags = ("train/loss", "validation/loss")
    assert {(tag, job) for tag, job, kept in lines if kept} == {(tag, job) for tag in tags for job in JOBS}
    assert {(tag, job) for tag, job, kept in lines if not kept} == {("train/loss", job) for job in JOBS[:2]}
    for tag in tags:
        for before, after in pairwise(JOBS):
            assert lines[tag, before, True][-1][-1] == lines[tag, after, True][0][0]
    assert [len(lines["train/loss", job, True]) for job in JOBS] == [1, 2, 1], "no line leads across the border"
    assert all(x[0] <= y[0] for strokes in lines.values() for one in strokes for x, y in pairwise(one))
    colours = browser.run(
        "return [...document.querySelectorAll('path.kept:not(.evaluation)')].map(p => getComputedStyle(p).stroke)"
    )
    assert len({*colours}) == 3
    assert browser.faults() == []


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_legend_phases_starts_evaluations_and_the_best_model_are_marked(shown: Path, browser: Browser) -> None:
    browser.open(shown)
    assert browser.texts(".legend li") == [
        "1. 4701 (1-200, killed)", "2. 4702 (201-400, killed)", "3. 4703 (401-600, finished)",
        "best on disk: 2.025 at step 250 (best/)", "trained again by a later job",
    ]  # fmt: skip
    assert browser.texts(".phase-name") == ["phase full", "completion"]
    assert browser.texts(".job-name") == [*JOBS]
    assert [line.get_attribute("data-job") for line in browser.all(".start")] == [*JOBS[1:]]
    assert len(browser.all(".marks.kept circle")) == 13
    ring = browser.one("circle.best")
    strokes = paths(browser)["validation/loss", JOBS[1], True]
    assert [float(ring.get_attribute(key) or 0) for key in ("cx", "cy")] == pytest.approx(strokes[0][1], abs=0.1)


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_pointing_shows_step_value_job_and_time(shown: Path, browser: Browser) -> None:
    browser.open(shown)
    lines = paths(browser)
    chart = browser.one(".chart svg")
    x, y = lines["train/loss", JOBS[2], True][0][150]
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(3e6 + 149))
    browser.point(chart, x, y)
    assert browser.texts(".tip > *") == [
        "step 550", "3. 4703 (401-600, finished)", f"{when}, 2.0514 active hours",
        "3.055 train/loss", "3.055 validation/loss",
    ]  # fmt: skip
    x, y = lines["train/loss", JOBS[0], False][0][10]
    browser.point(chart, x, y)
    assert browser.texts(".tip-row") == [
        "2.021 train/loss", "1.021 train/loss, trained again later", "1.02 validation/loss at step 200",
    ]  # fmt: skip
    assert browser.faults() == []


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_other_tags_and_axes_can_be_chosen_and_a_stretch_looked_at_closer(shown: Path, browser: Browser) -> None:
    browser.open(shown)
    browser.choose("train/learning_rate")
    assert browser.texts(".chart h3") == ["loss", "learning_rate"]
    browser.choose("train/loss")
    browser.choose("validation/loss")
    assert browser.texts(".chart h3") == ["learning_rate"]
    browser.choose("hours")
    hours = paths(browser)
    ends = [[hours["train/learning_rate", job, True][end][end][0] for end in (0, -1)] for job in JOBS]
    per_hour = (ends[1][0] - ends[0][0]) / 1
    assert ends[2][0] - ends[1][0] == pytest.approx(per_hour, rel=0.01), "each began an hour of jobs after the last"
    browser.choose("time")
    times = paths(browser)
    gap = times["train/learning_rate", JOBS[1], True][0][0][0] - times["train/learning_rate", JOBS[0], True][0][-1][0]
    assert gap > 400, "a wait is as wide as it was long"
    browser.choose("step")
    wide = paths(browser)["train/learning_rate", JOBS[1], True]
    browser.drag(browser.one(".chart svg"), (400, 100), (520, 100))
    near = paths(browser)["train/learning_rate", JOBS[1], True]
    assert near[0][-1][0] - near[0][0][0] > 3 * (wide[0][-1][0] - wide[0][0][0])
    assert browser.texts("button") == ["whole curve"]
    browser.one("button").click()
    assert paths(browser)["train/learning_rate", JOBS[1], True] == wide
    assert browser.faults() == []


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_a_page_is_dark_for_those_who_like_it_so(shown: Path, browser: Browser) -> None:
    browser.open(shown)
    grounds = []
    for on in (True, False):
        browser.dark(on=on)
        grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(21, 24, 28)", "rgb(255, 255, 255)"]


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_several_runs_lie_on_each_other_or_side_by_side(tmp_path: Path, browser: Browser) -> None:
    runs = [three(tmp_path / name, name) for name in ("grid-a", "grid-b")]
    write_curves(runs, tmp_path / "two.html", "grid")
    browser.open(tmp_path / "two.html")
    assert browser.texts(".legend li") == ["grid-a", "grid-b"]
    assert len(browser.all(".chart")) == 1
    strokes = "return [...document.querySelectorAll('path')].map(p => [p.dataset.run, getComputedStyle(p).stroke])"
    assert len({tuple(found) for found in browser.run(strokes)}) == 4, "a colour a run, paler for training"
    browser.choose("no")
    assert browser.texts(".chart h3") == ["grid-a: loss", "grid-b: loss"]
    assert {name for _, name, _ in paths(browser)} == {*JOBS}
    assert browser.faults() == []


@pytest.mark.browser
@NEEDS_CHROMIUM
def test_every_spike_of_sixty_jobs_is_seen(tmp_path: Path, browser: Browser) -> None:
    jobs = [job_curve(tmp_path, number, (number - 1) * 500) for number in range(1, 61)]
    for job in jobs:
        log_job(job, job.number * 500)
    writer = CurveWriter(jobs[30].directory)
    up, down = range(15_011, 15_480, 67), range(15_023, 15_490, 71)
    for value, steps in ((99.0, up), (-20.0, down)):
        for step in steps:
            writer.scalar("train/loss", value, step)
    writer.close()
    write_curves([RunCurves("long", stitch(jobs))], tmp_path / "long.html", "long")
    browser.open(tmp_path / "long.html")
    lines = paths(browser)
    assert len([1 for tag, _, kept in lines if tag == "train/loss" and kept]) == 60
    drawn = [point for strokes in lines.values() for stroke in strokes for point in stroke]
    assert len(drawn) < 12_000
    heights = [y for stroke in lines["train/loss", jobs[30].label, True] for _, y in stroke]
    assert (min(heights), max(heights)) == (min(y for _, y in drawn), max(y for _, y in drawn))
    assert (heights.count(min(heights)), heights.count(max(heights))) == (len(up), len(down))
    names = [int(name) for name in browser.texts(".job-name")]
    assert names[0] == 1 and len(names) > 25 and names == sorted(names), "numbers, as far as there is room"
    assert browser.faults() == []
