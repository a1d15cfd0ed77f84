"""The view: what stock TensorBoard shows of a run, in all its readers, cold and while the run goes on."""

import math
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.curves import view as view_module
from hpcft.curves.points import make_points
from hpcft.curves.rewind import Curve, Curves, Part, Update, joined, plan_update
from hpcft.curves.view import Picture, View
from tests.curves.chains import add_points, job_curve, log_job, three_jobs

Shown = dict[str, dict[str, list[tuple[int, float]]]]
"""Per TensorBoard run and tag: (step, value) in the order it is shown."""


def read_with_accumulator(directory: Path) -> Shown:
    shown: Shown = {}
    for path in sorted(path for path in directory.iterdir() if path.is_dir()):
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        shown[path.name] = {
            tag: [(event.step, round(event.value, 4)) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"]
        }
    return shown


def by_job(job: int, steps: range) -> list[tuple[int, float]]:
    return [(step, round(job + step / 10_000, 4)) for step in steps]


def expected_of_three_jobs() -> Shown:
    train = {1: by_job(1, range(1, 201)), 2: by_job(2, range(201, 401)), 3: by_job(3, range(401, 601))}
    validation = {
        1: by_job(1, range(0, 201, 50)),
        2: by_job(2, range(250, 401, 50)),
        3: by_job(3, range(450, 601, 50)),
    }
    return {
        f"job00{number}-470{number}": {
            "train/loss": train.get(number - 1, [])[-1:] + train[number],
            "validation/loss": validation.get(number - 1, [])[-1:] + validation[number],
        }
        for number in (1, 2, 3)
    } | {
        "stitched": {
            "train/loss": train[1] + train[2] + train[3],
            "validation/loss": validation[1] + validation[2] + validation[3],
        }
    }


def test_each_job_is_a_run_trimmed_and_bridged_and_stitched_is_the_whole(tmp_path: Path) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    assert read_with_accumulator(tmp_path / "view") == expected_of_three_jobs()


def test_a_bridge_carries_the_wall_time_of_the_jobs_own_first_point(tmp_path: Path) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    accumulator = EventAccumulator(str(tmp_path / "view" / "job002-4702")).Reload()
    first, second = accumulator.Scalars("train/loss")[:2]
    assert (first.step, second.step) == (200, 201)
    assert first.wall_time == second.wall_time == 2_000_000.0
    assert accumulator.FirstEventTimestamp() == 2_000_000.0


def test_the_view_of_a_growing_run_only_ever_appends(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 200)]
    view, contents = View(tmp_path / "view"), b""
    path = tmp_path / "view" / "stitched" / "events.out.tfevents.0000000001.hpcft"
    stages = [(jobs[0], 1, 100), (jobs[0], 101, 234), (jobs[1], 201, 210), (jobs[1], 211, 300)]
    for job, first, last in stages:
        log_job(job, last, first)
        view.poll(jobs)
        now = path.read_bytes()
        assert now.startswith(contents)
        assert len(now) > len(contents)
        contents = now
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    shown = read_with_accumulator(tmp_path / "view")["stitched"]["train/loss"]
    assert shown == by_job(1, range(1, 201)) + by_job(2, range(201, 301))


def test_a_poll_without_news_writes_nothing(tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path)
    view = View(tmp_path / "view")
    view.poll(jobs)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "view").rglob("*")}
    view.poll(jobs)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "view").rglob("*")} == before


def test_a_new_view_forgets_what_the_directory_held(tmp_path: Path) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    View(tmp_path / "view").poll([job_curve(tmp_path, 1, 0)])
    assert read_with_accumulator(tmp_path / "view").keys() == {"job001-4701", "stitched"}


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(FileExistsError, match="holds files that hpcft did not make"):
        View(tmp_path)
    assert (tmp_path / "thesis").is_dir()


def test_a_curve_that_lost_its_beginning_leaves_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 20)]
    log_job(jobs[0], 30)
    add_points(jobs[0].directory, "seen/late", [25], 1)
    view = View(tmp_path / "view")
    view.poll(jobs)
    log_job(jobs[1], 40)
    view.poll(jobs)
    now[0] += view_module.SECONDS_AWAY - 0.1
    view.poll(jobs)
    assert read_with_accumulator(tmp_path / "view").keys() == {"job002-4702"}
    now[0] += 0.2
    view.poll(jobs)
    shown = read_with_accumulator(tmp_path / "view")
    assert shown.keys() == {"job001-4701", "job002-4702", "stitched"}
    assert "seen/late" not in shown["stitched"]
    assert shown["stitched"]["train/loss"] == by_job(1, range(1, 21)) + by_job(2, range(21, 41))


def test_a_view_that_could_not_be_written_is_whole_at_a_later_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "SECONDS_AWAY", 0)
    jobs = three_jobs(tmp_path)
    view = View(tmp_path / "view")

    def refuse(events: list[bytes]) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(view_module, "encode_frames", refuse)
        with pytest.raises(OSError, match="No space left"):
            view.poll(jobs)
    view.poll(jobs)
    assert read_with_accumulator(tmp_path / "view") == expected_of_three_jobs()


def test_two_processes_cannot_keep_one_view(tmp_path: Path) -> None:
    view = View(tmp_path / "view")
    with pytest.raises(BlockingIOError, match=r"Another process keeps the TensorBoard view .*view\. Stop it first"):
        View(tmp_path / "view")
    del view
    View(tmp_path / "view")


@pytest.mark.parametrize("seed", range(12))
def test_a_followed_run_looks_like_one_read_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    chance = random.Random(seed)
    jobs = [job_curve(tmp_path, 1, 0)]
    reached = 0
    view = View(tmp_path / "live")
    for _ in range(12):
        if chance.random() < 0.3:
            reached = chance.randint(0, reached)
            jobs.append(job_curve(tmp_path, len(jobs) + 1, reached))
        else:
            log_job(jobs[-1], reached + chance.randint(1, 60), reached + 1)
            reached += 60
        view.poll(jobs)
        now[0] += chance.choice([1.0, 100.0])
    now[0] += 100.0
    view.poll(jobs)
    now[0] += 100.0
    view.poll(jobs)
    View(tmp_path / "cold").poll(jobs)
    shown = read_with_accumulator(tmp_path / "live")
    assert shown == read_with_accumulator(tmp_path / "cold")
    for curves in shown.values():
        for rows in curves.values():
            assert all(before[0] < after[0] for before, after in pairwise(rows))


def curve_of(rows: dict[int, float]) -> Curve:
    return (Part(make_points([(step, 0.0, value) for step, value in sorted(rows.items())])),)


def show(update: Update, shown: dict[str, dict[int, float]], server: bool) -> None:
    """Change `shown` as a reader does: the data server forgets per point, the Python ones per START."""
    if update.start is not None and not server:
        for rows in shown.values():
            for step in [step for step in rows if step >= update.start]:
                del rows[step]
    for tag, points in update.points.items():
        rows = shown.setdefault(tag, {})
        for step, value in zip(points.steps.tolist(), points.values.tolist(), strict=True):
            if server:
                for later in [known for known in rows if known >= step]:
                    del rows[later]
            else:
                assert step not in rows, "the Python readers would show the step twice"
                assert all(known < step for known in rows), "the line would go back"
            rows[step] = value


curves = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.integers(0, 8), st.sampled_from([1.0, 2.0, math.nan]), min_size=1, max_size=8),
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=500)
@given(st.lists(curves, min_size=2, max_size=5))
def test_after_any_change_all_readers_show_what_is_wanted_or_the_run_begins_anew(
    stages: list[dict[str, dict[int, float]]],
) -> None:
    current: Curves = {}
    models: list[tuple[bool, dict[str, dict[int, float]]]] = [(True, {}), (False, {})]
    for stage in stages:
        wanted = {tag: curve_of(rows) for tag, rows in stage.items()}
        update = plan_update(current, wanted)
        if update is None:
            current, models = {}, [(True, {}), (False, {})]
            update = plan_update(current, wanted)
        assert update is not None
        for server, shown in models:
            show(update, shown, server)
            assert {tag for tag, rows in shown.items() if rows} == wanted.keys()
            for tag, curve in wanted.items():
                points = joined(curve)
                assert sorted(shown[tag]) == points.steps.tolist()
                np.testing.assert_array_equal([shown[tag][step] for step in sorted(shown[tag])], points.values)
        current = wanted


def test_a_plain_continuation_is_no_rewind() -> None:
    shown = {"a": curve_of({1: 1.0, 2: math.nan})}
    wanted = {"a": curve_of({1: 1.0, 2: math.nan, 3: 3.0})}
    update = plan_update(shown, wanted)
    assert update is not None
    assert update.start is None
    assert update.points["a"].steps.tolist() == [3]


def test_pictures_are_shown_at_their_step_and_anew_when_they_are_drawn_anew(tmp_path: Path) -> None:
    def draw(path: Path, width: int) -> Picture:
        from matplotlib.figure import Figure

        Figure(figsize=(width, 1), dpi=10).savefig(path)
        return Picture("confusion/after", 40, path)

    def images() -> list[tuple[int, int]]:
        found = EventAccumulator(str(tmp_path / "view" / "evaluation")).Reload().Images("confusion/after")
        return [(image.step, image.width) for image in found]

    view, jobs = View(tmp_path / "view"), three_jobs(tmp_path)
    pictures = [draw(tmp_path / "after.png", 3), Picture("gone", 1, tmp_path / "gone.png")]
    for _ in range(2):
        view.poll(jobs, pictures)
    assert images() == [(40, 30)]
    time.sleep(0.02)
    view.poll(jobs, [draw(tmp_path / "after.png", 5)])
    assert images() == [(40, 50)]
    assert read_with_accumulator(tmp_path / "view")["stitched"] == expected_of_three_jobs()["stitched"]
