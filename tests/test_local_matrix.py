"""A matrix on this machine, whole: its runs train one after the other, and share the preparation of their rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcft.rundir import RunDir
from tests.promise import hpcft, make_parts, make_recipe

pytestmark = pytest.mark.slow


def test_the_runs_of_a_matrix_train_one_after_the_other_and_are_compared(tmp_path: Path) -> None:
    make_parts(tmp_path)
    recipe, runs = make_recipe(tmp_path, "grid", 6), tmp_path / "runs"
    recipe.write_text(recipe.read_text() + "matrix:\n  train.learning_rate: [1e-3, 1e-9]\n")
    recipe.write_text(recipe.read_text().replace("  learning_rate: 0.001\n", ""))
    done = hpcft("submit", recipe, "--runs", runs, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (RunDir(runs / f"grid-learning_rate-1e-{power}") for power in (3, 9))
    assert "run grid-learning_rate-1e-9: waits until another run of the matrix ends\n" in done.stdout
    ends, begins = first.jobs()[0].ended, second.jobs()[0].started
    assert ends and begins and ends["time"] < begins["time"]
    for split in ("train", "validation"):
        files = [(run.features / split / "tokens").stat() for run in (first, second)]
        assert files[0].st_ino == files[1].st_ino, "the second run has not tokenised anything"
    found = json.loads(hpcft("compare", recipe, "--json", "-o", tmp_path / "grid.png", "--runs", runs).stdout)
    assert found["best"] == first.name and found["by"] == "validation_loss"
    assert [run["settings"]["train.learning_rate"] for run in found["runs"]] == [1e-3, 1e-9]
    assert (tmp_path / "grid.png").stat().st_size > 10_000
    assert "best by validation_loss: grid-learning_rate-1e-3" in done.stdout
