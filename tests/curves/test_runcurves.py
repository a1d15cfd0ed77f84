"""What pictures know of a run from its records: when jobs ran, how they ended, and the best model on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.curves.runcurves import Best, Life, read_run
from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.curves.chains import add_points


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Two jobs of 1000 s with a wait of an hour between them, and a third that goes on; validated every 10 steps."""
    run = RunDir(tmp_path / "demo")
    write_json_in(run.path / "recipe.json", {"name": "demo", "task": "corpus"})
    for number in (1, 2, 3):
        job = run.job(number)
        begins, first = 4600.0 * (number - 1), 20 * (number - 1)
        write_json_in(job.path / "submitted.json", {"slurm_id": str(40 + number), "walltime": 60, "time": 0})
        write_json_in(job.path / "started.json", {"time": begins})
        write_json_in(job.path / "resumed.json", {"step": first, "total_steps": 60})
        if number < 3:
            write_json_in(job.path / "ended.json", {"ending": "walltime", "time": begins + 1000})
        else:
            write_json_in(job.path / "heartbeat.json", {"time": begins + 500})
        add_points(job.curve, "train/loss", list(range(first + 1, first + 21)), number, begins + 100)
        # The lowest is that of step 10, and of those with a checkpoint that of step 40.
        losses = {10: 0, 20: 3} if number == 1 else {first + 10: 4, first + 20: 2 if number == 2 else 5}
        for step, loss in losses.items():
            add_points(job.curve, "validation/loss", [step], loss, begins + 110)
    return run


def write_json_in(path: Path, fact: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, fact)


def save(run: RunDir, *steps: int) -> None:
    for step in steps:
        write_json_in(run.checkpoints / f"step-{step:08d}" / "manifest.json", {})


def test_jobs_have_their_lives_and_lie_behind_each_other_in_active_hours(run: RunDir) -> None:
    curves = read_run(run)
    assert curves.lives == {
        "job001-41": Life(0, 1000, "walltime"),
        "job002-42": Life(4600, 5600, "walltime"),
        "job003-43": Life(9200, 9700, "runs"),
    }
    assert [place.hours_before * 3600 for place in curves.places.values()] == pytest.approx([0, 1000, 2000])
    assert [curves.words(job) for job in curves.stitched.jobs] == [
        "1. 41 (1-20, walltime)", "2. 42 (21-40, walltime)", "3. 43 (41-60, runs)",
    ]  # fmt: skip


def test_the_best_is_what_is_kept_as_such_else_the_lowest_that_is_on_disk(run: RunDir) -> None:
    assert read_run(run).best is None, "nothing is on disk"
    save(run, 40, 60)
    assert read_run(run).best == Best(40, pytest.approx(2.004), "checkpoint")
    write_json(run.path / "finished.json", {"step": 60})
    write_json_in(run.final_model / "config.json", {})
    save(run, 20)
    assert read_run(run).best == Best(40, pytest.approx(2.004), "checkpoint")
    write_json_in(run.best_model / "best.json", {"step": 10, "validation_loss": 0.001, "time": 0})
    assert read_run(run).best == Best(10, 0.001, "best/")


def test_a_loss_of_another_kind_is_no_better_for_being_lower(run: RunDir) -> None:
    save(run, 40, 60)
    ends = [{"name": "full", "begins": 0, "ends": 40}, {"name": "completion", "begins": 40, "ends": 60}]
    phases = [{**phase, "other_measure": phase["begins"] == 40} for phase in ends]
    write_json(run.path / "phases.json", {"phases": phases})
    assert read_run(run).best == Best(60, pytest.approx(5.006), "checkpoint")
