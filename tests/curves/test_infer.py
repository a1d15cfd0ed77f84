"""Where the starts of somebody's training are taken to have gone on, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event

from hpcft.curves.events import start_event, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.infer import Taken, infer
from hpcft.curves.starts import Reader, _head
from hpcft.curves.stitch import stitch
from hpcft.curves.writer import CurveWriter

Curve = dict[str, range]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(*roots: str, in_order: bool = False) -> Reader:
        made.append(Reader([tmp_path / root for root in roots] or [tmp_path], in_order=in_order))
        return made[-1]

    yield make
    for each in made:
        each.close()


def log(folder: Path, began: float, curves: Curve, value: Callable[[int], float] = float) -> None:
    """Points at these steps, a second apart from `began` on."""
    writer = CurveWriter(folder)
    for tag, steps in curves.items():
        for second, step in enumerate(steps):
            writer.scalar(tag, value(step), step, wall_time=1e9 + began + second)
    writer.close()


def steps_taken(reader: Reader) -> list[int | None]:
    return [one.resume_step for one in infer(reader.find().starts)[0]]


def doubts(reader: Reader) -> list[str]:
    return infer(reader.find().starts, by_clock=reader.by_clock)[1]


def kept(reader: Reader, tag: str) -> list[int]:
    found = reader.find()
    taken, _ = infer(found.starts)
    return list(stitch(reader.job_curves(found.starts, [one.resume_step for one in taken])).curve(tag).steps)


def test_a_start_went_on_one_stride_before_its_first_point(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(10, 235, 10), "val": range(50, 235, 50)})
    log(tmp_path / "b", 500, {"loss": range(210, 401, 10), "val": range(250, 401, 50)})
    assert infer(reader().find().starts) == (
        [Taken(0, "the first"), Taken(200, "its loss begins at 210, every 10")],
        [],
    )
    assert kept(reader(), "loss") == list(range(10, 401, 10))
    assert kept(reader(), "val") == [50, 100, 150, 200, 250, 300, 350, 400]


def test_a_scalar_at_step_0_of_each_start_is_no_cut(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"hp_metric": range(1), "loss": range(9, 235, 10)})
    log(tmp_path / "b", 500, {"hp_metric": range(1), "loss": range(209, 401, 10)})
    assert steps_taken(reader()) == [0, 199]


def test_an_evaluation_between_the_last_kept_log_and_the_checkpoint_stays(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    """It saved at 36, behind an evaluation; the next log is at 40 and the next evaluation at 48."""
    log(tmp_path / "a", 0, {"loss": range(10, 46, 10), "val": range(12, 37, 12)})
    log(tmp_path / "b", 500, {"loss": range(40, 101, 10), "val": range(48, 101, 12)})
    assert steps_taken(reader()) == [0, 36]
    assert kept(reader(), "val") == list(range(12, 101, 12))
    assert kept(reader(), "loss") == list(range(10, 101, 10))


def test_what_was_logged_of_the_last_step_alone_takes_nothing_away(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101), "val": range(50, 101, 50)})
    log(tmp_path / "b", 500, {"val": range(100, 101), "test": range(100, 101)})
    assert steps_taken(reader()) == [0, 100]
    assert (kept(reader(), "loss"), kept(reader(), "val")) == (list(range(1, 101)), [50, 100])
    assert kept(reader(), "test") == [100]


def test_a_start_that_went_back_further_supersedes_what_lies_between(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    for number, (first, last) in enumerate(((1, 234), (201, 330), (101, 150), (121, 400))):
        log(tmp_path / f"v{number}", 500 * number, {"loss": range(first, last + 1)}, lambda step, n=number: n)
    assert steps_taken(reader()) == [0, 200, 100, 120]
    assert kept(reader(), "loss") == list(range(1, 401))
    assert doubts(reader()) == []


def test_a_start_without_a_scalar_takes_nothing_away(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "events.out.tfevents.1000000500.host.1.0").touch()
    log(tmp_path / "c", 900, {"loss": range(81, 201)})
    assert [one.why for one in infer(reader().find().starts)[0]][1] == "it has logged no scalar"
    assert kept(reader(), "loss") == list(range(1, 201))


def test_steps_that_begin_again_are_warned_of(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)}, lambda step: 5.0)
    log(tmp_path / "b", 500, {"loss": range(1, 51)}, lambda step: 5.0)
    (said,) = doubts(reader())
    assert said.startswith("start 2 begins at step 1 again, where start 1 had come to 100: taken as begun afresh")
    assert kept(reader(), "loss") == list(range(1, 51))


def test_steps_that_were_reset_are_told_from_a_fresh_start_by_the_loss(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)}, lambda step: 5 - 3 * step / 100)
    log(tmp_path / "b", 500, {"loss": range(1, 51)}, lambda step: 2 - step / 100)
    (said,) = doubts(reader())
    assert "goes on where that one ended (2.06; it began at 4.91): its steps were counted from 0 anew" in said


def test_steps_that_no_file_has_are_named(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "b", 0, {"loss": range(110, 201, 10)})
    log(tmp_path / "c", 500, {"loss": range(310, 401, 10)})
    assert doubts(reader()) == [
        "no file has the steps from 201 to 300, before start 2.",
        "start 1 begins at step 110: what came before is not here.",
    ]


def test_a_clock_that_was_wrong_is_suspected_and_the_order_can_be_given(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    log(tmp_path / "first", 5000, {"loss": range(1, 235)}, lambda step: 1.0)
    log(tmp_path / "second", 1000, {"loss": range(201, 401)}, lambda step: 2.0)
    said = doubts(reader())
    assert any(
        "by the clocks start 1 ran before start 2, by the steps after it: it begins at 201, and start 2 has 1 to 234"
        in one for one in said
    )  # fmt: skip
    assert kept(reader(), "loss") == list(range(1, 235))
    ordered = reader("first", "second", in_order=True)
    assert (kept(ordered, "loss"), doubts(ordered)) == (list(range(1, 401)), [])


def test_two_that_wrote_at_the_same_time_are_doubted(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)})
    log(tmp_path / "b", 50, {"loss": range(51, 151)})
    assert doubts(reader())[0].startswith("start 2 began while start 1 still wrote")


def test_writers_of_different_tags_in_one_folder_are_one_start(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)})
    log(tmp_path / "a", 10, {"val": range(50, 101, 50)})
    log(tmp_path / "a", 500, {"loss": range(81, 201)})
    found = reader().find()
    assert [(start.name, len(start.files)) for start in found.starts] == [("a.1", 2), ("a.2", 1)]
    assert (kept(reader(), "loss"), kept(reader(), "val")) == (list(range(1, 201)), [50])


def test_curves_below_a_starts_folder_are_left_out_and_said(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)})
    log(tmp_path / "a" / "loss_train", 0, {"loss": range(1, 101)})
    found = reader().find()
    assert (len(found.starts), found.left_out) == (1, (tmp_path / "a" / "loss_train",))


def test_nan_and_clocks_without_sense_stop_nothing(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    log(tmp_path / "a", math.nan, {"loss": range(1, 101)}, lambda step: math.nan)
    log(tmp_path / "b", 500, {"loss": range(1, 51)}, lambda step: math.nan)
    assert len(reader().find().starts) == 2
    assert len(doubts(reader())) >= 1


def test_a_purge_mark_behind_a_large_event_is_found(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.x"
    graph = Event(wall_time=7.0, graph_def=b"x" * 200_000).SerializeToString()
    path.write_bytes(encode_frames([version_event(7.0), graph, start_event(9, 8.0)]))
    assert _head(path) == (7.0, 9)


def test_links_in_a_circle_and_a_file_that_is_gone_stop_nothing(tmp_path: Path, reader: Callable[..., Reader]) -> None:
    logs = tmp_path / "logs"
    log(logs / "one", 1000, {"loss": range(1, 5)})
    (logs / "itself").symlink_to(logs / "itself")
    (logs / "above").symlink_to(logs)
    (logs / "gone").mkdir()
    (logs / "gone" / "events.out.tfevents.1.there").symlink_to(tmp_path / "nowhere")
    (logs / "one" / "events.out.tfevents.2.long").symlink_to("x" * 300)  # whose look gives an error of the system
    assert [start.name for start in reader(logs).find().starts] == ["one"]


def test_only_what_has_grown_is_read_again_and_new_starts_are_found(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    log(tmp_path / "a", 0, {"loss": range(1, 101)})
    one = reader()
    assert steps_taken(one) == [0]
    log(tmp_path / "b", 500, {"loss": range(81, 91)})
    assert steps_taken(one) == [0, 80]
    with next((tmp_path / "b").iterdir()).open("ab") as file:
        other = tmp_path / "more"
        log(other, 600, {"loss": range(91, 101)})
        file.write(next(other.iterdir()).read_bytes())
        next(other.iterdir()).unlink()
    assert one.find().starts[1].last_step == 100
