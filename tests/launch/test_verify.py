"""Which steps `hpcft verify` makes again, and what it refuses before a node is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.errors import UserError
from hpcft.launch.verify import stretch
from hpcft.rundir import RunDir


def run_with(folder: Path, *saved: int, total: int | None = 100) -> RunDir:
    run = RunDir(folder / "demo")
    length = {"steps": total} if total else {"epochs": 2}
    for step in saved:
        (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
        write_json(run.checkpoints / f"step-{step:08d}" / "manifest.json", {})
    run.path.mkdir(exist_ok=True, parents=True)
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "m"}, "data": {"train": "/t.jsonl"}, "train": length}
    write_json(run.path / "recipe.json", recipe)
    return run


def test_the_newest_checkpoint_with_enough_steps_behind_it_is_taken(tmp_path: Path) -> None:
    cases = {
        ((40, 60), 6): (60, 66),
        ((40, 97), 6): (40, 46),
        ((97, 100), 6): (97, 100),
        ((99, 100), 6): (0, 6),
        ((), 200): (0, 100),
    }
    for number, ((saved, steps), expected) in enumerate(cases.items()):
        assert stretch(run_with(tmp_path / str(number), *saved), steps, None) == expected
    assert stretch(run_with(tmp_path / "chosen", 40, 60), 6, 40) == (40, 46)
    assert stretch(run_with(tmp_path / "begin", 40, 60), 6, 0) == (0, 6)


@pytest.mark.parametrize(
    ("saved", "total", "step", "message"),
    [
        ((40, 60), 100, 50, "--step: demo has no checkpoint of step 50. It has: 40, 60; 0 is its start."),
        ((99,), 100, 99, "--step: leaves 1 of 100 steps, and a cut needs 2. Name an earlier checkpoint with --step."),
        ((), None, None, "demo: has not counted its rows yet. Verify it when its first job has begun."),
    ],
)
def test_what_cannot_be_verified_is_said(
    tmp_path: Path, saved: tuple[int, ...], total: int | None, step: int | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        stretch(run_with(tmp_path, *saved, total=total), 6, step)
    assert [str(fault) for fault in error.value.faults] == [message]
