"""A step: numbers that are none never reach the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hpcft.errors import UserError
from hpcft.train.loop import train
from hpcft.train.training import Training
from tests.train.pieces import begin, digest, make_run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def spoil(training: Training, calls: set[int], what: str = "loss") -> None:
    """Make these forward passes, counted from 0, give a loss or a gradient that is no number."""
    count = -1

    def ruin(module: object, inputs: object, loss: torch.Tensor) -> Any:
        nonlocal count
        count += 1
        if count not in calls:
            return loss
        if what == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    training.model.register_forward_hook(ruin)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_ends_the_run_with_its_rows_and_leaves_the_weights(
    parts: Path, tmp_path: Path, what: str
) -> None:
    training = begin(make_run(parts, tmp_path / "run", {"grouping": "plain"}))
    spoil(training, {5}, what)  # the second micro-batch of the third step
    with pytest.raises(UserError) as error:
        train(training)
    rows = sorted(int(row) + 1 for row in training.share.step_rows(2))
    said = "the loss is nan" if what == "loss" else "the gradient's norm is "
    assert f"rows.jsonl: non-finite numbers: {said}" in str(error.value)
    assert f"at step 3, in rows {rows}. Look at them, lower train.learning_rate" in str(error.value)
    assert training.position.step == 2
    assert all(bool(parameter.isfinite().all()) for parameter in training.model.parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_recipe_may_leave_such_steps_out_and_goes_on(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    training = begin(make_run(parts, tmp_path / "run", {"on_nonfinite": "skip", "grouping": "plain"}))
    spoil(training, {5}, what)
    assert train(training) == "finished"
    assert (training.position.step, training.position.left_out, training.position.left_out_in_a_row) == (8, 1, 0)
    assert all(bool(parameter.isfinite().all()) for parameter in training.model.parameters())
    rows = sorted(int(row) + 1 for row in training.share.step_rows(2))
    said = "the loss is nan" if what == "loss" else "the gradient's norm is "
    assert f"hpcft: step 3 changed no weight: {said}" in (out := capsys.readouterr().out)
    assert f"; rows {rows}\n" in out


def test_a_step_that_is_left_out_changes_neither_weights_nor_moments(parts: Path, tmp_path: Path) -> None:
    training = begin(make_run(parts, tmp_path / "run", {"on_nonfinite": "skip", "steps": 3}))
    before = digest(training)
    spoil(training, set(range(100)))
    assert train(training) == "finished"
    assert digest(training) == before


def test_steps_that_are_left_out_without_end_stop_the_run(parts: Path, tmp_path: Path) -> None:
    training = begin(make_run(parts, tmp_path / "run", {"on_nonfinite": "skip", "steps": 50}))
    spoil(training, set(range(6, 1000)))
    with pytest.raises(UserError, match="20 steps in a row changed no weight, the last is 23: the loss is nan"):
        train(training)


def test_evaluation_changes_nothing_of_the_training(parts: Path, tmp_path: Path) -> None:
    found = []
    for every in (None, 1):
        validation = {"data": {"validation": str(parts / "rows.jsonl")}, "evaluate": {"every": every}} if every else {}
        training = begin(make_run(parts, tmp_path / f"every-{every}", {"steps": 4}, **validation))
        assert train(training) == "finished"
        found.append(digest(training))
    assert found[0] == found[1]
