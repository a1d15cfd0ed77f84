"""What hardly ever happens to event files and views, and must not cost more than itself."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.util.tensor_util import make_tensor_proto

from hpcft.curves import stitch as stitch_module
from hpcft.curves import view as view_module
from hpcft.curves.events import file_name, scalar_event
from hpcft.curves.reader import JobReader, read_points
from hpcft.curves.stitch import JobCurve, Stitcher, stitch
from hpcft.curves.view import View
from tests.curves.cases import LOSS, chain, points, put, value
from tests.curves.chains import job_curve, log_job
from tests.curves.test_cases import by_accumulator
from tests.curves.victims import poll_until_back


def picture(step: int, width: int = 3) -> bytes:
    image = Summary.Image(width=width, height=1, colorspace=4, encoded_image_string=b"png")
    return bytes(Event(wall_time=5.0, step=step, summary=Summary(value=[Summary.Value(tag="picture", image=image)]))
                 .SerializeToString())  # fmt: skip


def tensor(tag: str, plugin: str, content: object) -> bytes:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    one = Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(content))
    return bytes(Event(wall_time=5.0, step=1, summary=Summary(value=[one])).SerializeToString())


def test_what_somebody_has_put_into_a_view_stays(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0)]
    log_job(jobs[0], 10)
    View(tmp_path / "view").poll(jobs)
    (tmp_path / "view/mine").mkdir()
    (tmp_path / "view/mine/thesis.txt").write_text("years of work")
    View(tmp_path / "view").poll(jobs)
    assert (tmp_path / "view/mine/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("change", ["gone", "empty", "another"])
def test_a_picture_whose_file_is_another_by_now_is_left_out_and_nothing_else(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = chain(tmp_path, 0, 10)
    path = put(jobs[0], *points(1, range(1, 21)), *(picture(step) for step in (5, 15)))
    monkeypatch.setattr(view_module, "plan_runs", meanwhile(path, change))
    View(tmp_path / "view").poll(jobs)
    shown = by_accumulator(tmp_path / "view")["stitched"]
    assert [step for step, _ in shown[LOSS]] == list(range(1, 21))
    assert len(list((tmp_path / "view/stitched").iterdir())) == 1


def meanwhile(path: Path, change: str) -> object:
    """What happens to a file between a look at it and the copy of what was seen."""
    planned = view_module.plan_runs

    def plan(stitched: object) -> object:
        found = planned(stitched)  # type: ignore[arg-type]
        path.unlink(missing_ok=True)
        if change != "gone":
            path.write_bytes(b"" if change == "empty" else bytes(10_000))
        for run in found.values():  # the scalars are in memory
            assert run.curves
        return found

    return plan


def test_a_folder_that_is_out_of_reach_for_once_loses_nothing_and_is_named(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    log_job(job, 10)
    reader = JobReader(job.directory)
    before = reader.poll()
    aside = job.directory.rename(tmp_path / "aside")
    job.directory.symlink_to(job.directory)  # which is an OSError, for root too
    during = reader.poll()
    assert during.curves is before.curves and "symbolic" in during.damage.unreadable[0]
    job.directory.unlink()
    aside.rename(job.directory)
    assert reader.poll().damage.unreadable == ()


def test_a_job_that_is_over_is_read_once_more_before_its_files_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    job = JobCurve("job001-1", 1, 1, tmp_path / "1", 0, over=True)
    put(job, *points(1, range(1, 11)))
    stitcher = Stitcher()
    assert len(stitcher.stitch([job]).curve(LOSS)) == 10
    put(job, *points(1, range(1, 16)))
    now[0] += 10 * stitch_module.SECONDS_TO_SETTLE
    assert len(stitcher.stitch([job]).curve(LOSS)) == 15
    put(job, *points(1, range(1, 21)))
    assert len(stitcher.stitch([job]).curve(LOSS)) == 15


def test_events_that_no_reader_could_show_cost_only_themselves(tmp_path: Path) -> None:
    jobs = chain(tmp_path, 0)
    strange = [
        tensor("words", "scalars", [b"no number"]),
        tensor("many", "scalars", [1.0, 2.0]),
        scalar_event("", 1.0, 1, 5.0),
        scalar_event("\0jobs", 1.0, 1, 5.0),
        tensor("wide", "scalars", np.float64(1 / 3)),
    ]
    put(jobs[0], *points(1, range(1, 11)), *strange)
    for _ in range(2):
        View(tmp_path / "view").poll(jobs)
    stitched = by_accumulator(tmp_path / "view")["stitched"]
    assert stitched.keys() == {LOSS, "wide"} and len(stitched[LOSS]) == 10
    assert stitched["wide"] == [(1, str(float(np.float32(1 / 3))))]
    assert len(list((tmp_path / "view/stitched").iterdir())) == 1, "it is the same when it is read back"


def test_a_step_that_another_file_logs_again_is_the_later_ones(tmp_path: Path) -> None:
    jobs = chain(tmp_path, 0)
    put(jobs[0], *points(1, (1, 2, 3)))
    put(jobs[0], *points(2, (3,)), file=2)
    reader = JobReader(jobs[0].directory)
    assert reader.poll().curves[LOSS].values.tolist() == [value(1, 1), value(1, 2), value(2, 3)]
    put(jobs[0], *points(2, (3,)), *points(9, (3,)), file=2)
    assert reader.poll().curves[LOSS].values.tolist() == [value(1, 1), value(1, 2), value(9, 3)]


def test_pictures_before_the_first_scalar_make_a_job_the_owner_of_its_steps(tmp_path: Path) -> None:
    jobs = chain(tmp_path, 0, 10)
    put(jobs[0], *points(1, range(1, 31)), *(picture(step) for step in (5, 15, 25)))
    put(jobs[1], *(picture(step, width=4) for step in (12, 18)))
    found = stitch(jobs)
    ((_, segments),) = found.raw.items()
    assert [part.points.steps.tolist() for part in segments] == [[5], [12, 18]]
    assert found.curve(LOSS).steps.tolist() == list(range(1, 11))


def test_a_time_that_is_no_number_is_the_one_before_it_or_the_files_first(tmp_path: Path) -> None:
    jobs = chain(tmp_path, 0)
    times = [float("nan"), 7.0, float("nan"), 9.0]
    put(jobs[0], *(scalar_event(LOSS, 1.0, step, when) for step, when in enumerate(times, 1)))
    assert read_points(jobs[0].directory).curves[LOSS].wall_times.tolist() == [1e6, 7.0, 7.0, 9.0]


def test_a_view_that_somebody_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "SECONDS_AWAY", 0)
    jobs = [job_curve(tmp_path, 1, 0)]
    log_job(jobs[0], 10)
    view = View(tmp_path / "view")
    view.poll(jobs)
    before = by_accumulator(tmp_path / "view")
    shutil.rmtree(tmp_path / "view")
    poll_until_back(view, jobs)
    assert by_accumulator(tmp_path / "view") == before
    (tmp_path / "view/stitched" / file_name(1)).unlink()
    poll_until_back(view, jobs)
    assert by_accumulator(tmp_path / "view") == before


def test_a_table_of_jobs_that_changes_takes_the_old_ones_place_in_its_file(tmp_path: Path) -> None:
    """TensorBoard's page loses its choice of runs when one of them goes and comes back."""
    jobs = chain(tmp_path, 0, 10)
    put(jobs[0], *points(1, range(1, 11)))
    view = View(tmp_path / "view")
    for number, words in enumerate(("one", "two", "three"), 1):
        view.poll(jobs[:number], (), lambda stitched, words=words: words)  # type: ignore[misc]
        accumulator = EventAccumulator(str(tmp_path / "view/chain")).Reload()
        # This reader forgets no texts; TensorBoard's own do.
        assert accumulator.Tensors("jobs")[-1].tensor_proto.string_val[0] == words.encode()
        assert len(list((tmp_path / "view/chain").iterdir())) == 1
