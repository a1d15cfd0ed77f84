"""Which job's point survives: the keep rule against its plain definition, and whole chains."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpcft.curves.events import file_name, scalar_event, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.reader import Damage, read_points
from hpcft.curves.stitch import Stitched, Stitcher, cut_steps, kept_slice, stitch
from tests.curves.chains import add_points, job_curve, log_job, three_jobs

Attempt = tuple[int | None, frozenset[int], frozenset[int]]
"""Resume step, steps logged of one tag, of another."""

attempts = st.lists(
    st.tuples(
        st.none() | st.integers(0, 12),
        st.frozensets(st.integers(0, 15), max_size=10),
        st.frozensets(st.integers(0, 15), max_size=3),
    ),
    max_size=6,
)


def kept_by_definition(chain: list[Attempt], tag: int) -> list[set[int]]:
    """As it is said: r < s <= min(r of later effective attempts); at r only if nobody kept it or beyond."""

    def effective(attempt: Attempt) -> bool:
        return attempt[0] is not None and any(step > attempt[0] for step in attempt[1] | attempt[2])

    kept: list[set[int]] = []
    for index, attempt in enumerate(chain):
        kept.append(set())
        resume_step, steps = attempt[0], (attempt[1], attempt[2])[tag]
        for step in sorted(steps):
            if resume_step is None:
                continue
            if any(step > later[0] for later in chain[index + 1 :] if later[0] is not None and effective(later)):
                continue
            taken = any(earlier >= step for of_earlier in kept[:index] for earlier in of_earlier)
            if step > resume_step or (step == resume_step and not taken):
                kept[index].add(step)
    return kept


@given(attempts)
def test_kept_steps_are_those_of_the_definition_and_strictly_increase(chain: list[Attempt]) -> None:
    last = [max(one | other, default=None) for _, one, other in chain]
    cuts = cut_steps([resume_step for resume_step, _, _ in chain], last)
    for tag in (0, 1):
        reached, kept = -1, []
        for (resume_step, *logged), cut in zip(chain, cuts, strict=True):
            steps = np.array(sorted(logged[tag]), dtype=np.int64)
            keep = steps[kept_slice(steps, resume_step, cut, reached)].tolist()
            assert all(step > reached for step in keep)
            reached = keep[-1] if keep else reached
            kept.append(set(keep))
        assert kept == kept_by_definition(chain, tag)


def kept_steps(stitched: Stitched, tag: str) -> dict[int, list[int]]:
    return {segment.job.number: segment.points.steps.tolist() for segment in stitched.kept(tag)}


def test_a_killed_chain_is_one_curve_without_its_dead_ends(tmp_path: Path) -> None:
    stitched = stitch(three_jobs(tmp_path))
    assert stitched.tags == ("train/loss", "validation/loss")
    assert kept_steps(stitched, "train/loss") == {
        1: list(range(1, 201)), 2: list(range(201, 401)), 3: list(range(401, 601))
    }  # fmt: skip
    assert [s.points.steps.tolist() for s in stitched.superseded("train/loss")] == [
        list(range(201, 235)), list(range(401, 431))
    ]  # fmt: skip
    assert stitched.curve("validation/loss").steps.tolist() == list(range(0, 601, 50))
    whole = stitched.curve("train/loss")
    assert whole.steps.tolist() == list(range(1, 601))
    assert (np.floor(whole.values) == 1 + (whole.steps > 200) + (whole.steps > 400)).all()


def test_a_job_that_died_before_its_first_step_takes_nothing_away(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 100), job_curve(tmp_path, 3, None)]
    log_job(jobs[0], 120)
    assert kept_steps(stitch(jobs), "train/loss") == {1: list(range(1, 121))}


def test_a_fall_back_to_an_old_checkpoint_supersedes_whole_jobs(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 100), job_curve(tmp_path, 3, 50)]
    for job, last in zip(jobs, (100, 200, 80), strict=True):
        log_job(job, last)
    stitched = stitch(jobs)
    assert kept_steps(stitched, "train/loss") == {1: list(range(1, 51)), 3: list(range(51, 81))}
    assert [segment.job.number for segment in stitched.superseded("train/loss")] == [1, 2]


def test_an_evaluation_missed_by_the_stopped_job_is_the_next_jobs_at_its_resume_step(
    tmp_path: Path,
) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 100)]
    add_points(jobs[0].directory, "train/loss", list(range(1, 101)), 1)
    add_points(jobs[0].directory, "validation/loss", [0, 50], 1)
    add_points(jobs[1].directory, "validation/loss", [100, 150], 2)
    assert kept_steps(stitch(jobs), "validation/loss") == {1: [0, 50], 2: [100, 150]}


def test_an_evaluation_done_twice_at_the_resume_step_is_the_first_jobs(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 100)]
    add_points(jobs[0].directory, "validation/loss", [50, 100], 1)
    add_points(jobs[1].directory, "validation/loss", [100, 150], 2)
    stitched = stitch(jobs)
    assert kept_steps(stitched, "validation/loss") == {1: [50, 100], 2: [150]}
    assert stitched.superseded("validation/loss")[0].points.steps.tolist() == [100]


def test_a_step_logged_twice_in_one_job_counts_once_and_last(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    add_points(job.directory, "train/loss", [1, 2, 3], 1)
    add_points(job.directory, "train/loss", [2], 9)
    curve = stitch([job]).curve("train/loss")
    assert curve.steps.tolist() == [1, 2, 3]
    assert np.floor(curve.values).tolist() == [1, 9, 1]


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    job.directory.mkdir()
    values = [1.0, float("nan"), float("inf"), float("-inf")]
    events = [scalar_event("train/loss", value, step, 5.0) for step, value in enumerate(values, 1)]
    (job.directory / file_name(1)).write_bytes(encode_frames([version_event(5.0), *events]))
    np.testing.assert_array_equal(stitch([job]).curve("train/loss").values, values)


def test_damage_is_counted_and_costs_only_itself(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    add_points(job.directory, "train/loss", list(range(1, 101)), 1)
    (path,) = job.directory.iterdir()
    data = bytearray(path.read_bytes())
    size = len(encode_frames([scalar_event("train/loss", 1.0, 50, 1.0)]))
    start = data.index(b"train/loss", 50 * size)
    data[start] ^= 1
    path.write_bytes(bytes(data[:-10]))
    (job.directory / "events.out.tfevents.0000000002.hpcft").touch()
    (job.directory / "events.out.tfevents.0000000003.hpcft").mkdir()
    (job.directory / "notes.txt").write_text("not an event file")
    stitched = stitch([job])
    assert len(stitched.curve("train/loss")) == 98
    damage = stitched.damage[job.label]
    assert (damage.bad_frames, damage.lost_bytes) == (1, size - 10)
    assert damage.unreadable == ("events.out.tfevents.0000000003.hpcft: Is a directory",)


def test_no_directory_is_no_points(tmp_path: Path) -> None:
    found = read_points(tmp_path / "missing")
    assert (dict(found.curves), found.damage) == ({}, Damage())


def test_a_stitcher_sees_what_was_added_and_leaves_alone_what_was_not(tmp_path: Path) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 10)]
    log_job(jobs[0], 10)
    stitcher = Stitcher()
    before = stitcher.stitch(jobs).kept("train/loss")[0].points
    log_job(jobs[1], 20)
    after = stitcher.stitch(jobs)
    assert after.curve("train/loss").steps.tolist() == list(range(1, 21))
    assert after.kept("train/loss")[0].points.steps.base is before.steps.base


def test_a_hundred_thousand_events_are_read_in_seconds(tmp_path: Path) -> None:
    import time

    frames = [scalar_event("train/loss", 1.0, step, 1.0) for step in range(1, 100_001)]
    (tmp_path / file_name(1)).write_bytes(encode_frames([version_event(1.0), *frames]))
    begun = time.perf_counter()
    assert len(read_points(tmp_path).curves["train/loss"]) == 100_000
    assert time.perf_counter() - begun < 4.0
