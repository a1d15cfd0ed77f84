"""What can become of the event files of a chain, case by case: how each is made, and the curve that must be seen.

Every value tells its job and step: job + step / 10,000, in 32 bits.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.util.tensor_util import make_tensor_proto

from hpcft.curves.events import file_name, scalar_event, start_event, version_event
from hpcft.curves.frames import encode_frame, encode_frames
from hpcft.curves.stitch import JobCurve
from tests.curves.chains import job_curve

LOSS, VALIDATION = "train/loss", "validation/loss"
Kept = list[tuple[int, Iterable[int]]]
"""Which steps of which job survive."""
Tags = dict[str, list[tuple[int, float]]]


@dataclass
class Case:
    """A chain, and what is to be seen of it."""

    jobs: list[JobCurve]
    kept: dict[str, Kept]
    values: dict[tuple[str, int], float] = field(default_factory=dict)
    """Of tag and step, where a value does not tell its job."""

    def curve(self, tag: str) -> list[tuple[int, int, float]]:
        """Job, step and value of every point."""
        rows = [(job, step) for job, steps in self.kept[tag] for step in steps]
        return [(job, step, self.values.get((tag, step), value(job, step))) for job, step in rows]

    def shown(self) -> dict[str, Tags]:
        """The TensorBoard runs: a job's own points behind the last one before it, and all of them in `stitched`."""
        found: dict[str, Tags] = {}
        labels = {job.number: job.label for job in self.jobs}
        for tag in self.kept:
            before: tuple[int, float] | None = None
            for number, label in labels.items():
                own = [(step, value) for job, step, value in self.curve(tag) if job == number]
                if own:
                    found.setdefault(label, {})[tag] = [*([before] if before else []), *own]
                    before = own[-1]
            if rows := [(step, value) for _, step, value in self.curve(tag)]:
                found.setdefault("stitched", {})[tag] = rows
        return found


def value(job: int, step: int) -> float:
    """Of a job at a step, as 32 bits hold it."""
    return float(np.float32(job + step / 10_000))


def points(job: int, steps: Iterable[int], tag: str = LOSS, clock: float | None = None) -> list[bytes]:
    """Events a second apart; each job's clock begins a million seconds after the one before it."""
    begun = 1e6 * job if clock is None else clock
    return [scalar_event(tag, value(job, step), step, begun + step) for step in steps]


def put(job: JobCurve, *events: bytes, file: int = 1, version: bool = True, more: bytes = b"") -> Path:
    """An event file of a job, with `more` bytes behind the events."""
    job.directory.mkdir(parents=True, exist_ok=True)
    path = job.directory / file_name(file)
    path.write_bytes(encode_frames([version_event(1e6 * job.number)] * version + list(events)) + more)
    return path


def chain(root: Path, *resumes: int | None) -> list[JobCurve]:
    return [job_curve(root, number, resume) for number, resume in enumerate(resumes, 1)]


CASES: dict[str, Callable[[Path], Case]] = {}


def case(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
    CASES[make.__name__] = make
    return make


def two(root: Path, *first_more: bytes, more: bytes = b"") -> list[JobCurve]:
    """Killed at 60 behind the checkpoint at 50; `more` bytes stand behind the first one's events."""
    jobs = chain(root, 0, 50)
    put(jobs[0], *points(1, range(1, 61)), *first_more, more=more)
    put(jobs[1], *points(2, range(51, 91)))
    return jobs


TWO: Kept = [(1, range(1, 51)), (2, range(51, 91))]


@case
def killed_behind_its_checkpoint_and_sparse_points_in_the_dead_tail(root: Path) -> Case:
    jobs = two(root, *points(1, (0, 25, 55), VALIDATION))
    return Case(jobs, {LOSS: TWO, VALIDATION: [(1, (0, 25))]})


@case
def a_clean_chain(root: Path) -> Case:
    jobs = chain(root, 0, 30, 60)
    for number, job in enumerate(jobs):
        put(job, *points(number + 1, range(30 * number + 1, 30 * number + 31)))
    return Case(jobs, {LOSS: [(1, range(1, 31)), (2, range(31, 61)), (3, range(61, 91))]})


@case
def a_gap_between_the_resume_and_the_first_point(root: Path) -> Case:
    jobs = chain(root, 0, 50)
    put(jobs[0], *points(1, range(10, 61, 10)))
    put(jobs[1], *points(2, range(70, 101, 10)))
    return Case(jobs, {LOSS: [(1, range(10, 51, 10)), (2, range(70, 101, 10))]})


@case
def a_fall_back_below_an_older_job(root: Path) -> Case:
    jobs = chain(root, 0, 50, 30)
    put(jobs[0], *points(1, range(1, 61)))
    put(jobs[1], *points(2, range(51, 81)), *points(2, [75], "seen/once"))
    put(jobs[2], *points(3, range(31, 71)))
    return Case(jobs, {LOSS: [(1, range(1, 31)), (3, range(31, 71))]})


@case
def jobs_that_log_nothing_or_never_begin(root: Path) -> Case:
    jobs = chain(root, 0, 50, None, 50)
    put(jobs[0], *points(1, range(1, 61)))
    put(jobs[1])
    put(jobs[3], *points(4, range(51, 71)))
    return Case(jobs, {LOSS: [(1, range(1, 51)), (4, range(51, 71))]})


@case
def one_that_died_at_its_start_takes_nothing_away(root: Path) -> Case:
    jobs = chain(root, 0, 20)
    put(jobs[0], *points(1, range(1, 61)))
    put(jobs[1], *points(2, [20], VALIDATION))
    return Case(jobs, {LOSS: [(1, range(1, 61))], VALIDATION: [(2, [20])]})


@case
def a_requeue_of_the_same_job(root: Path) -> Case:
    jobs = [job_curve(root, 1, 0), job_curve(root, 1, 20, attempt=2)]
    put(jobs[0], *points(1, range(1, 31)))
    put(jobs[1], *points(1, range(21, 51)))
    made = Case(jobs, {LOSS: [(1, range(1, 51))]})
    rows = {label: made.shown()["stitched"][LOSS][part] for label, part in
            ((jobs[0].label, slice(0, 20)), (jobs[1].label, slice(19, 50)), ("stitched", slice(0, 50)))}  # fmt: skip
    made.shown = lambda: {label: {LOSS: of_label} for label, of_label in rows.items()}  # type: ignore[method-assign]
    return made


@case
def two_writers_with_tags_of_their_own(root: Path) -> Case:
    jobs = chain(root, 0)
    put(jobs[0], *points(1, range(1, 41)))
    put(jobs[0], *points(1, (0, 20, 40), VALIDATION), file=2)
    return Case(jobs, {LOSS: [(1, range(1, 41))], VALIDATION: [(1, (0, 20, 40))]})


@case
def one_tag_in_two_files_at_interleaved_steps(root: Path) -> Case:
    jobs = chain(root, 0)
    put(jobs[0], *points(1, range(1, 60, 2)))
    put(jobs[0], *points(1, range(2, 61, 2)), file=2)
    return Case(jobs, {LOSS: [(1, range(1, 61))]})


@case
def steps_twice_and_out_of_order(root: Path) -> Case:
    jobs = chain(root, 0)
    put(jobs[0], *points(9, [3]), *points(1, (5, 4, 3, 1, 2)), *points(1, (7, 6)))
    return Case(jobs, {LOSS: [(1, range(1, 8))]})


@case
def values_that_are_no_numbers_and_steps_that_are_large(root: Path) -> Case:
    jobs = chain(root, 0)
    strange = {1: math.nan, 2: math.inf, 3: -math.inf, 1 << 40: 1.5}
    put(jobs[0], *(scalar_event(LOSS, number, step, 5.0) for step, number in strange.items()))
    return Case(jobs, {LOSS: [(1, strange)]}, {(LOSS, step): number for step, number in strange.items()})


@case
def clocks_that_say_nonsense(root: Path) -> Case:
    jobs = chain(root, 0, 20)
    clocks = [math.nan, -5.0, 1e6, 10.0, math.inf]
    put(jobs[0], *(scalar_event(LOSS, value(1, step), step, clocks[step % 5]) for step in range(1, 31)))
    put(jobs[1], *points(2, range(21, 51), clock=100.0))  # a node whose clock is far behind
    return Case(jobs, {LOSS: [(1, range(1, 21)), (2, range(21, 51))]})


@case
def a_torn_end(root: Path) -> Case:
    return Case(two(root, more=encode_frame(points(1, [61])[0])[:-9]), {LOSS: TWO})


@case
def zeros_at_the_end(root: Path) -> Case:
    return Case(two(root, more=bytes(4096)), {LOSS: TWO})


@case
def what_was_appended_behind_a_tear(root: Path) -> Case:
    torn = encode_frame(points(1, [21])[0])[:-9]
    jobs = chain(root, 0)
    put(jobs[0], *points(1, range(1, 21)), more=torn + encode_frames(points(1, range(21, 41))))
    return Case(jobs, {LOSS: [(1, range(1, 41))]})


def flipped(root: Path, inside: int) -> list[JobCurve]:
    """Two jobs; a bit of the first one's event at step 11 is another, so many bytes behind its begin."""
    jobs = two(root)
    path = jobs[0].directory / file_name(1)
    data = bytearray(path.read_bytes())
    begin = len(encode_frames([version_event(1e6), *points(1, range(1, 11))]))
    data[begin + inside] ^= 4
    path.write_bytes(bytes(data))
    return jobs


BUT_11: Kept = [(1, [*range(1, 11), *range(12, 51)]), (2, range(51, 91))]


@case
def a_byte_of_data_is_another(root: Path) -> Case:
    return Case(flipped(root, 12 + 30), {LOSS: BUT_11})


@case
def a_byte_of_a_length_is_another(root: Path) -> Case:
    return Case(flipped(root, 0), {LOSS: BUT_11})


@case
def files_that_hold_nothing_and_files_of_somebody_else(root: Path) -> Case:
    jobs = two(root)
    for number, content in ((3, b""), (4, b"abc")):
        (jobs[0].directory / file_name(number)).write_bytes(content)
    (jobs[0].directory / file_name(5)).mkdir()
    (jobs[0].directory / "events.gz").write_bytes(gzip.compress(b"no"))
    (jobs[0].directory / "notes.txt").write_text("not an event file")
    return Case(jobs, {LOSS: TWO})


@case
def tags_that_only_some_jobs_have_or_call_otherwise(root: Path) -> Case:
    jobs = chain(root, 0, 20, 40)
    put(jobs[0], *points(1, range(1, 21)), *points(1, range(1, 21), "old/name"))
    put(jobs[1], *points(2, range(21, 41)), *points(2, [30], "only/here"))
    put(jobs[2], *points(3, range(41, 61)), *points(3, range(41, 61), "new/name"))
    losses: Kept = [(1, range(1, 21)), (2, range(21, 41)), (3, range(41, 61))]
    more: dict[str, Kept] = {"old/name": losses[:1], "only/here": [(2, [30])], "new/name": losses[2:]}
    return Case(jobs, {LOSS: losses, **more})


@case
def a_config_text_at_step_0_of_every_start(root: Path) -> Case:
    jobs = chain(root, 0, 50)
    put(jobs[0], text_event("args/text_summary", "one"), *points(1, range(1, 61)))
    put(jobs[1], text_event("args/text_summary", "two"), *points(2, range(51, 91)))
    return Case(jobs, {LOSS: TWO})


@case
def writers_that_ask_for_a_purge(root: Path) -> Case:
    jobs = chain(root, 0, 50)
    put(jobs[0], start_event(0, 1e6), *points(1, range(1, 61)))
    put(jobs[1], start_event(51, 2e6), *points(2, range(51, 91)))
    return Case(jobs, {LOSS: TWO})


@case
def a_file_without_its_version(root: Path) -> Case:
    jobs = chain(root, 0, 50)
    put(jobs[0], *points(1, range(1, 61)), version=False)
    put(jobs[1], *points(2, range(51, 91)), version=False)
    return Case(jobs, {LOSS: TWO})


@case
def scalars_as_tensors_with_a_description_at_the_first_alone(root: Path) -> Case:
    jobs = chain(root, 0)
    put(jobs[0], *(tensor_event(step, described=step == 1) for step in range(1, 21)))
    return Case(jobs, {LOSS: [(1, range(1, 21))]})


@case
def several_values_in_one_event(root: Path) -> Case:
    jobs = chain(root, 0)
    events = []
    for step in range(1, 21):
        both = [Summary.Value(tag=tag, simple_value=value(1, step)) for tag in (LOSS, VALIDATION)]
        events.append(Event(wall_time=5.0 + step, step=step, summary=Summary(value=both)).SerializeToString())
    put(jobs[0], *events)
    return Case(jobs, {LOSS: [(1, range(1, 21))], VALIDATION: [(1, range(1, 21))]})


@case
def names_that_are_odd(root: Path) -> Case:
    jobs = [JobCurve("job001-größe %41 'x'", 1, 1, root / "ein ordner", 0)]
    put(jobs[0], *points(1, range(1, 6), "Verlust/größe %20 <b>"))
    return Case(jobs, {"Verlust/größe %20 <b>": [(1, range(1, 6))]})


@case
def twenty_thousand_points(root: Path) -> Case:
    jobs = chain(root, 0)
    put(jobs[0], *points(1, range(1, 20_001)))
    return Case(jobs, {LOSS: [(1, range(1, 20_001))]})


@case
def a_hundred_jobs(root: Path) -> Case:
    jobs = chain(root, *range(0, 500, 5))
    for number, job in enumerate(jobs, 1):
        put(job, *points(number, range(5 * number - 4, 5 * number + 3)))
    last: Kept = [(100, range(496, 503))]
    return Case(jobs, {LOSS: [(n, range(5 * n - 4, 5 * n + 1)) for n in range(1, 100)] + last})


@case
def two_jobs_that_ran_at_once(root: Path) -> Case:
    jobs = chain(root, 0, 0)
    put(jobs[0], *points(1, range(1, 41), clock=100.0))
    put(jobs[1], *points(2, range(1, 31), clock=110.0))
    return Case(jobs, {LOSS: [(2, range(1, 31))]})


def text_event(tag: str, words: str, step: int = 0) -> bytes:
    """As torch's `add_text` writes it."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    content = Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto([words.encode()]))
    return bytes(Event(wall_time=5.0, step=step, summary=Summary(value=[content])).SerializeToString())


def tensor_event(step: int, described: bool) -> bytes:
    """As a writer of TensorFlow 2 writes a scalar."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    content = Summary.Value(tag=LOSS, tensor=make_tensor_proto(np.float32(value(1, step))))
    if described:
        content.metadata.CopyFrom(metadata)
    return bytes(Event(wall_time=5.0 + step, step=step, summary=Summary(value=[content])).SerializeToString())


def seen(found: dict[str, Sequence[Sequence[float]]]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Tags with rows that can be compared: no number is like itself here."""
    for tag, rows in found.items():
        yield tag, [(int(step), str(float(number))) for step, number in rows]
