"""The picture: what a reader must find in it, read from the SVG, and that PNGs are whole."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcft.curves.axis import Axis, places, thin
from hpcft.curves.events import file_name, scalar_event, version_event
from hpcft.curves.figure import COLOURS, look
from hpcft.curves.frames import encode_frames
from hpcft.curves.picture import draw
from hpcft.curves.points import Points, make_points
from hpcft.curves.runcurves import Best, Life, Phase, RunCurves
from hpcft.curves.stitch import JobCurve, stitch
from tests.curves.chains import add_points, job_curve, log_job, three_jobs

SVG = "{http://www.w3.org/2000/svg}"


class Picture:
    """An SVG by the ids that `draw` gives its lines."""

    def __init__(self, path: Path) -> None:
        root = ElementTree.parse(path).getroot()
        self.lines = {
            group.attrib["id"]: group
            for group in root.iter(f"{SVG}g")
            if re.match(r"(train|validation|speed|superseded|start|phase|best)", group.attrib.get("id", ""))
        }
        self.texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]

    def style(self, name: str) -> str:
        (path,) = self.lines[name].findall(f"{SVG}path")
        return path.attrib["style"]

    def points(self, name: str) -> list[tuple[float, float]]:
        (path,) = self.lines[name].findall(f"{SVG}path")
        return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path.attrib["d"])]

    def strokes(self, name: str) -> int:
        (path,) = self.lines[name].findall(f"{SVG}path")
        return path.attrib["d"].count("M ")

    def dots(self, name: str) -> int:
        return len(list(self.lines[name].iter(f"{SVG}use")))


def run(jobs: list[JobCurve], phases: Sequence[Phase] = (), **more: Any) -> RunCurves:
    return RunCurves("sst2 $5 run_1", stitch(jobs), tuple(phases), **more)


def draw_svg(jobs: list[JobCurve], directory: Path, phases: Sequence[Phase] = ()) -> Picture:
    return draw_run(run(jobs, phases), directory)


def draw_run(curves: RunCurves, directory: Path, tags: Sequence[str] = (), axis: Axis = "step") -> Picture:
    out = directory / "curve.svg"
    draw(curves, out, tags, axis)
    return Picture(out)


def test_a_chain_has_one_line_per_job_and_a_dashed_one_where_each_next_job_begins(tmp_path: Path) -> None:
    picture = draw_svg(three_jobs(tmp_path), tmp_path)
    assert sorted(name for name in picture.lines if name.startswith("train")) == [
        "train-loss-job001-4701", "train-loss-job002-4702", "train-loss-job003-4703"
    ]  # fmt: skip
    assert sorted(name for name in picture.lines if name.startswith("validation")) == [
        "validation-loss-job001-4701", "validation-loss-job002-4702", "validation-loss-job003-4703"
    ]  # fmt: skip
    starts = [name for name in picture.lines if name.startswith("start")]
    assert starts == ["start-job002-4702", "start-job003-4703"]
    assert all("stroke-dasharray" in picture.style(name) for name in starts)
    solid = [name for name in picture.lines if name.startswith(("train", "validation"))]
    assert not any("stroke-dasharray" in picture.style(name) for name in solid)
    assert {"job001-4701", "job002-4702", "job003-4703", "sst2 $5 run_1", "step", "loss"} <= set(picture.texts)
    assert {"training loss", "validation loss", "trained again by a later job"} <= set(picture.texts)


def test_each_line_sets_out_where_the_job_before_ended(tmp_path: Path) -> None:
    picture = draw_svg(three_jobs(tmp_path), tmp_path)
    for name in ("train-loss", "validation-loss"):
        for before, after in ((1, 2), (2, 3)):
            end = picture.points(f"{name}-job00{before}-470{before}")[-1]
            begin = picture.points(f"{name}-job00{after}-470{after}")[0]
            assert end == pytest.approx(begin)
    assert picture.dots("validation-loss-job001-4701") == 5
    assert picture.dots("validation-loss-job002-4702") == 4, "the dot where the line sets out is the job before's"


def test_what_was_trained_again_is_grey_and_behind(tmp_path: Path) -> None:
    picture = draw_svg(three_jobs(tmp_path), tmp_path)
    tails = [name for name in picture.lines if name.startswith("superseded-train")]
    assert tails == ["superseded-train-loss-job001-4701", "superseded-train-loss-job002-4702"]
    assert all("stroke: #bbbbbb" in picture.style(name) for name in tails)
    drawn = list(picture.lines)
    assert max(map(drawn.index, tails)) < min(drawn.index(name) for name in drawn if name.startswith("train"))


def test_neighbours_never_share_a_colour_even_in_a_chain_of_sixty(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, number, (number - 1) * 10) for number in range(1, 61)]
    for job in jobs:
        log_job(job, job.number * 10)
    picture = draw_svg(jobs, tmp_path)
    strokes = []
    for job in jobs:
        found = re.search(r"stroke: (#\w+)", picture.style(f"train-loss-{job.label}"))
        assert found is not None
        strokes.append(found[1])
    assert len(set(strokes)) == len(COLOURS)
    assert all(one != other for one, other in pairwise(strokes))
    looks = [look(index) for index in range(24)]
    assert len({*looks}) == 24, "where the colours have run out, dashes tell a job from the one six before"
    dashed = ["stroke-dasharray" in picture.style(f"train-loss-{job.label}") for job in jobs]
    assert dashed == [bool(look(index).dashes) for index in range(60)]
    assert len([name for name in picture.lines if name.startswith("start")]) == 59
    assert {"1", "60"} <= set(picture.texts), "sixty whole labels do not fit; numbers do"
    assert "… 25 more" in picture.texts and "60. 4760 (591-600)" in picture.texts


def test_one_point_is_a_dot(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    add_points(job.directory, "train/loss", [1], 1)
    picture = draw_svg([job], tmp_path)
    assert picture.dots("train-loss-job001-4701") == 1
    assert "a job begins" not in picture.texts


def test_nan_is_a_gap(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    job.directory.mkdir()
    values = [1.0] * 10 + [math.nan] * 5 + [1.1] * 10 + [math.inf] + [1.2] * 10
    events = [scalar_event("train/loss", value, step, 5.0) for step, value in enumerate(values, 1)]
    (job.directory / file_name(1)).write_bytes(encode_frames([version_event(5.0), *events]))
    picture = draw_svg([job], tmp_path)
    assert picture.strokes("train-loss-job001-4701") == 3


def test_a_long_curve_is_thinned_and_keeps_its_extremes_and_gaps() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=100_000)
    values[31_415], values[27_182], values[50_000:50_010] = 9.0, -9.0, math.nan
    points = make_points([(step, 0.0, float(value)) for step, value in enumerate(values)])
    few = thin(points, points.steps.astype(float), 0, 100_000, pixels=500)
    assert len(few) <= 4 * 500 + 4
    assert (np.diff(few) > 0).all()
    assert {0, 31_415, 27_182, 99_999} <= set(few.tolist())
    assert np.isnan(points.values[few]).any()


def test_a_short_curve_is_left_alone_and_each_job_of_a_long_chain_is_thinned() -> None:
    points = make_points([(step, 0.0, float(step % 7)) for step in range(2000)])
    at = points.steps.astype(float)
    assert len(thin(points, at, 0, 1999, pixels=500)) == 2000
    assert len(thin(points, at, 0, 100 * 2000, pixels=500)) < 30, "of a hundred such jobs each has five columns"


def test_the_same_curve_gives_the_same_file(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    draw(run(jobs), tmp_path / "one.svg")
    draw(run(jobs), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    draw(run(three_jobs(tmp_path)), tmp_path / "out" / "curve.png")
    (path,) = (tmp_path / "out").iterdir()
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data.endswith(b"IEND\xaeB`\x82")


def test_nothing_to_draw_is_said_in_words(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, None), job_curve(tmp_path, 2, 0)]
    with pytest.raises(ValueError, match="nothing to draw yet: no job has logged a loss"):
        draw(run(jobs), tmp_path / "curve.png")
    assert not list(tmp_path.glob("*.png"))


def test_an_unknown_format_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"this picture is \.svg or \.png, not '\.pdf'"):
        draw(run(three_jobs(tmp_path)), tmp_path / "curve.pdf")


def test_a_run_without_training_loss_shows_its_validation_loss(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    add_points(job.directory, "validation/loss", [0, 50, 100], 1)
    picture = draw_svg([job], tmp_path)
    assert list(picture.lines) == ["validation-loss-job001-4701"]


def test_only_the_picture_needs_matplotlib_and_nothing_needs_torch() -> None:
    script = """
import sys
import hpcft.curves.picture, hpcft.curves.page, hpcft.curves.sparkline, hpcft.curves.overlay
import hpcft.curves.server, hpcft.curves.view, hpcft.curves.writer
print([name for name in ("matplotlib", "torch", "tensorflow", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_points_slice_like_their_arrays() -> None:
    points = make_points([(2, 20.0, 0.2), (1, 10.0, 0.1), (2, 21.0, 0.3)])
    assert isinstance(points[1:], Points)
    assert (points[1:].steps.tolist(), points[1:].wall_times.tolist()) == ([2], [21.0])


def test_phases_are_named_and_marked_and_no_line_joins_losses_of_two_kinds(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    plain = draw_svg(jobs, tmp_path)
    phases = [Phase("full", 0, 300, False), Phase("completion", 300, 500, True), Phase("slow", 500, 900, False)]
    picture = draw_svg(jobs, tmp_path, phases)
    assert [text for text in picture.texts if text not in plain.texts] == ["phase full", "completion", "slow"]
    marks = sorted(name for name in picture.lines if name.startswith("phase"))
    assert marks == ["phase-begins-completion", "phase-begins-slow", "phase-completion"]
    ((border, _), *_), ((later, _), *_) = (picture.points(f"phase-begins-{name}") for name in ("completion", "slow"))
    ((left, _), (right, _), *_) = picture.points("phase-completion")
    assert (min(left, right), max(left, right)) == pytest.approx((border, later), abs=0.1)
    # Of the second job, from 200 to 400: in two strokes with phases, in one without; the third has no border of kinds.
    for tag in ("train", "validation"):
        names = [f"{tag}-loss-{job.label}" for job in jobs]
        assert [picture.strokes(name) - plain.strokes(name) for name in names] == [0, 1, 0]
    gone = draw_svg(jobs, tmp_path, [Phase("full", 0, 700, False), Phase("late", 700, 900, True)])
    assert "late" not in gone.texts, "a phase that has no step yet has no place"


def lived(jobs: list[JobCurve]) -> dict[str, Life]:
    """Each began 16 s before its first point, lasted for an hour, and was killed, but for the last."""
    endings = [*["killed"] * (len(jobs) - 1), "finished"]
    begins = [1e6 * job.number - 16 for job in jobs]
    return {job.label: Life(t, t + 3600, end) for job, t, end in zip(jobs, begins, endings, strict=True)}


def test_the_legend_says_of_each_job_its_id_the_steps_that_it_kept_and_its_ending(tmp_path: Path) -> None:
    jobs = [*three_jobs(tmp_path), job_curve(tmp_path, 4, None)]
    picture = draw_run(run(jobs, lives=lived(jobs)), tmp_path)
    found = [text for text in picture.texts if re.match(r"\d\. ", text)]
    assert found == ["1. 4701 (1-200, killed)", "2. 4702 (201-400, killed)", "3. 4703 (401-600, killed)"]
    assert run(jobs, lives=lived(jobs)).words(jobs[3]) == "4. 4704 (no step kept, finished)"


def test_the_best_model_on_disk_has_a_ring_at_its_validation_loss(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    picture = draw_run(run(jobs, best=Best(250, 2.025, "best/")), tmp_path)
    assert picture.dots("best") == 1
    assert "best on disk: 2.025 at step 250 (best/)" in picture.texts
    assert "best" not in draw_run(run(jobs, best=Best(250, 2.025, "best/")), tmp_path, ["train/loss"]).lines


def test_on_the_axis_of_hours_jobs_follow_each_other_without_queue_waits(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    curves = run(jobs, lives=lived(jobs))
    assert [(place.hours_before, place.hours) for place in curves.places.values()] == [(0, 1), (1, 1), (2, 1)]
    at = np.concatenate([places(curves, part.job, part.points, "hours") for part in curves.stitched.kept("train/loss")])
    assert at[[0, 199, 200, 400]] * 3600 == pytest.approx([16, 215, 3616, 7216])
    picture = draw_run(curves, tmp_path, axis="hours")
    ((begins, _), *_) = picture.points("start-job002-4702")
    assert picture.points("train-loss-job001-4701")[-1][0] < begins < picture.points("train-loss-job002-4702")[0][0]
    assert "active hours, without queue waits" in picture.texts


def test_on_the_axis_of_time_waits_are_gaps_and_ticks_are_dates(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    picture = draw_run(run(jobs), tmp_path, axis="time")
    assert [picture.strokes(f"train-loss-{job.label}") for job in jobs] == [1, 1, 1]
    ends = [[picture.points(f"train-loss-{job.label}")[end][0] for end in (0, -1)] for job in jobs]
    assert all(after[0] - before[1] > 100 for before, after in pairwise(ends)), "a million seconds wide"
    assert any(re.match(r"\d\d:\d\d\n1970-|\d\d:\d\d$", text) for text in picture.texts), picture.texts


def test_other_tags_have_a_plot_for_each_measure(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    for job in jobs:
        add_points(job.directory, "speed/mfu", [(job.resume_step or 0) + 1, (job.resume_step or 0) + 90], job.number)
    picture = draw_run(run(jobs), tmp_path, ["train/loss", "speed/mfu", "validation/loss"])
    assert {"loss", "mfu", "speed/mfu"} <= set(picture.texts)
    assert sorted(name for name in picture.lines if name.startswith("speed")) == [
        f"speed-mfu-{job.label}" for job in jobs
    ]
    with pytest.raises(ValueError, match=r'nothing is logged as "speed/mfv". Did you mean "speed/mfu"\?'):
        draw_run(run(jobs), tmp_path, ["speed/mfv"])
