"""Nodes that a run keeps away from: a node is blamed only when the failure looks like its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcft.disk import write_json
from hpcft.launch.nodes import Blame, blame, exclude, excluded
from hpcft.rundir import JobDir, RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "demo")


def ended(run: RunDir, on: str | None, ending: str, **facts: Any) -> JobDir:
    """The next job of the run, which ended so on this node."""
    job = run.job(len(run.jobs()) + 1)
    job.path.mkdir(parents=True)
    if on:
        write_json(job.path / "started.json", {"time": 0, "saved_step": None, "node": on})
    write_json(job.path / "ended.json", {"ending": ending, "progress": False, **facts})
    return job


def test_a_gpu_that_is_broken_is_blamed_at_once(run: RunDir) -> None:
    job = ended(run, "gpu3", "crashed", reason="RuntimeError: CUDA error: uncorrectable ECC error encountered")
    assert blame(run, job, known_cause=False) == Blame("gpu3", "job 1 failed there: uncorrectable ECC")


def test_a_crash_is_a_nodes_only_if_jobs_on_others_did_well_and_none_on_it(run: RunDir) -> None:
    assert blame(run, ended(run, "gpu3", "crashed", reason="boom"), known_cause=False) is None, "nothing to compare"
    ended(run, "gpu1", "walltime", progress=True)
    job = ended(run, "gpu3", "crashed", reason="boom")
    told = Blame("gpu3", "job 3 failed there at once, and jobs on gpu1 did not")
    assert blame(run, job, known_cause=False) == told
    assert blame(run, job, known_cause=True) is None, "memory would be short on every node"
    ended(run, "gpu3", "walltime", progress=True)
    assert blame(run, ended(run, "gpu3", "crashed", reason="boom"), known_cause=False) is None


@pytest.mark.parametrize("ending", ["terminated", "walltime", "stopped", "refused", "killed"])
def test_who_was_ended_from_outside_blames_no_node(run: RunDir, ending: str) -> None:
    ended(run, "gpu1", "walltime", progress=True)
    assert blame(run, ended(run, "gpu3", ending), known_cause=False) is None


def test_slurms_word_counts_and_a_job_that_never_began_is_compared(run: RunDir) -> None:
    job = ended(run, "gpu3", "killed", slurm_state="NODE_FAIL")
    assert blame(run, job, known_cause=False) == Blame("gpu3", "Slurm says that it failed")
    ended(run, "gpu1", "walltime", progress=True)
    still_born = ended(run, None, "killed", node="gpu4", reason="it never came to its first line")
    assert blame(run, still_born, known_cause=False) == Blame(
        "gpu4", "job 3 failed there at once, and jobs on gpu1 did not"
    )


@pytest.mark.parametrize("several", ["gpu[1-2]", "gpu1,login7"])
def test_of_several_nodes_the_one_that_failed_is_blamed_and_none_where_slurm_names_them_all(
    run: RunDir, several: str
) -> None:
    job = ended(run, "gpu1", "killed", slurm_state="NODE_FAIL", node=several)
    assert blame(run, job, known_cause=False) is None
    job = ended(run, "gpu1", "crashed", node="gpu2", reason="RuntimeError: CUDA error: uncorrectable ECC error")
    assert blame(run, job, known_cause=False) == Blame("gpu2", "job 2 failed there: uncorrectable ECC")


def test_what_is_excluded_stays_so_with_its_reason(run: RunDir) -> None:
    first, second = ended(run, "gpu3", "crashed"), ended(run, "gpu4", "crashed")
    exclude(run, first, Blame("gpu3", "its GPU is broken"))
    exclude(run, second, Blame("gpu4", "so is this"))
    assert excluded(run) == {"gpu3": "its GPU is broken", "gpu4": "so is this"}
