"""The verdict: when the endings of a chain's jobs say that a further job would not go another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcft.disk import write_json
from hpcft.ending import NEUTRAL
from hpcft.job.verdict import Halt, crash_loop, explain_log, halt
from hpcft.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "demo")


def end(run: RunDir, *endings: str, progress: bool = False, **facts: Any) -> None:
    """Let the next jobs of the run have ended so."""
    for ending in endings:
        job = run.job(len(run.jobs()) + 1)
        job.path.mkdir(parents=True)
        write_json(job.path / "started.json", {"time": 0, "saved_step": None})
        write_json(job.path / "ended.json", {"ending": ending, "progress": progress, **facts})


def test_a_chain_without_endings_goes_on(run: RunDir) -> None:
    assert crash_loop(run) is None
    run.job(1).path.mkdir(parents=True)  # it runs
    assert crash_loop(run) is None


def test_one_crash_is_no_loop_and_two_in_a_row_are(run: RunDir) -> None:
    end(run, "crashed", reason="the GPU ran out of memory", fix="Use less.")
    assert crash_loop(run) is None
    end(run, "crashed", reason="the GPU ran out of memory", fix="Use less.")
    assert crash_loop(run) == Halt(
        "2 jobs in a row ended without a step that was kept: the GPU ran out of memory.", "Use less."
    )


def test_two_walltimes_without_a_saved_step_say_that_the_walltime_is_too_short(run: RunDir) -> None:
    end(run, "walltime", "walltime")
    assert crash_loop(run) == Halt(
        "2 jobs in a row ended without a step that was kept: the walltime is too short for one step and a save.",
        "`hpcft resume RUN --set resources.walltime=H:MM:SS` goes on with a longer one.",
    )


def test_an_evaluation_that_no_walltime_has_room_for_is_named(run: RunDir) -> None:
    end(run, "walltime", "walltime", phase="evaluate")
    found = crash_loop(run)
    assert found and "the walltime is too short for an evaluation of data.validation." in found.reason


def test_kills_are_chance_and_five_in_a_row_are_no_more(run: RunDir) -> None:
    end(run, "killed", "terminated", "killed", "terminated")
    assert crash_loop(run) is None
    end(run, "killed")
    assert crash_loop(run) == Halt(
        "5 jobs in a row were killed before they could save a step.",
        "`hpcft resume RUN --set train.save_every=N` goes on with a smaller one.",
    )


def test_crashes_and_kills_are_counted_apart(run: RunDir) -> None:
    end(run, "crashed", "killed", "killed", "killed", "killed")
    assert crash_loop(run) is None
    end(run, "crashed", reason="x", fix="y")
    assert crash_loop(run) is not None


def test_endings_that_say_nothing_of_training_neither_count_nor_part_a_row(run: RunDir) -> None:
    end(run, "crashed", *NEUTRAL, "crashed", *NEUTRAL, reason="x", fix="y")
    assert crash_loop(run) == Halt("2 jobs in a row ended without a step that was kept: x.", "y")


@pytest.mark.parametrize("ending", ["crashed", "killed", "walltime", "terminated", "stopped"])
def test_a_job_that_got_further_clears_what_was_before_it(run: RunDir, ending: str) -> None:
    end(run, "crashed", "killed", "killed", "killed", "killed", reason="x", fix="y")
    end(run, ending, progress=True)
    end(run, "crashed", reason="x", fix="y")
    assert crash_loop(run) is None
    end(run, "crashed", reason="x", fix="y")
    assert crash_loop(run) is not None


def test_a_resume_forgives_all_that_was_before_it(run: RunDir) -> None:
    end(run, "crashed", "crashed", reason="x", fix="y")
    assert crash_loop(run) is not None
    write_json(run.path / "resume.json", {"time": 0, "after": 2})
    assert crash_loop(run) is None
    end(run, "crashed", reason="x", fix="y")
    assert crash_loop(run) is None
    end(run, "crashed", reason="x", fix="y")
    assert crash_loop(run) is not None


def test_the_attempts_of_a_requeued_job_count_each(run: RunDir) -> None:
    for attempt in (1, 2):
        job = run.job(1, attempt)
        job.path.mkdir(parents=True)
        write_json(job.path / "ended.json", {"ending": "crashed", "reason": "x", "fix": "y"})
    assert crash_loop(run) is not None


def test_a_halt_is_recorded_for_all_later_jobs_to_read(run: RunDir) -> None:
    end(run, "crashed")
    halt(run, run.job(1), Halt("it broke.", "Mend it."))
    halted = run.halted
    assert halted is not None
    assert {key: halted[key] for key in ("reason", "fix", "job")} == {
        "reason": "it broke.",
        "fix": "Mend it.",
        "job": 1,
    }


# --- what a log says ---


@pytest.mark.parametrize(
    ("line", "reason", "fix"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "the GPU ran out of memory",
            "`hpcft resume RUN --set train.micro_batch_size=N` goes on with a smaller one.",
        ),
        (
            "OSError: [Errno 28] No space left on device",
            "the disk is full",
            "Make room, then resume.",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "this torch was not built for this GPU",
            "A V100 needs sm_70: torch 2.10 or older from PyPI, or a cu126 build up to 2.14.",
        ),
        (
            "ModuleNotFoundError: No module named 'transformers.models'",
            "a package is missing in the env: transformers.models",
            "Install it there, then resume.",
        ),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
            "the job ran out of host memory",
            "`hpcft resume RUN --set resources.memory=NG` goes on with more.",
        ),
        ("ValueError: odd\n\n  ", "ValueError: odd", "See `hpcft logs`."),
        ("", "it left no word in its log", "See `hpcft logs`."),
    ],
)
def test_a_log_is_explained_in_words(tmp_path: Path, line: str, reason: str, fix: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"step 1\n{line}\n" if line else "")
    assert explain_log(log) == Halt(reason, fix)


def test_only_the_end_of_a_log_counts_and_a_missing_one_is_no_crash_of_ours(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"CUDA out of memory\n" + b"fine \xff\n" * 20_000 + b"the end\n")
    assert explain_log(log).reason == "the end"
    assert explain_log(tmp_path / "none").reason == "it left no word in its log"


def test_a_worker_killed_from_outside_is_told_as_such_unless_the_log_knows_better(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("step 1\n")
    assert explain_log(log, -9).reason == "a worker was killed from outside, as the kernel does when memory is short"
    log.write_text("CUDA out of memory\n")
    assert explain_log(log, -9).reason == "the GPU ran out of memory"
