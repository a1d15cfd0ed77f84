"""What is logged: token means, speeds of real tokens, padding, and windows that a cut does not show in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hpcft.curves.reader import read_points
from hpcft.curves.writer import CurveWriter
from hpcft.data.batches import Share
from hpcft.data.order import RowOrder
from hpcft.sections import Train
from hpcft.train.log import Log, perplexity
from hpcft.train.optimizer import learning_rate
from hpcft.train.phases import Span
from hpcft.train.progress import Progress
from hpcft.train.step import StepResult
from hpcft.train.training import Position

LENGTHS = [3, 5, 9, 4]
"""Of the rows; padded to the longest of two."""
SHARE = Share(RowOrder(np.array(LENGTHS), 0, 2, False), "plain", 2, 16, 0, 1)


def make_training(folder: Path, position: Position) -> Any:
    """As much of a training as a log looks at: two rows a step, one point every three steps."""
    parameters = torch.nn.Linear(2, 2)
    train = Train(steps=6, batch_size=2, log_every=3)
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace()), parameters=parameters.parameters
    )
    return SimpleNamespace(
        position=position,
        recipe=SimpleNamespace(train=train, has_classes=False),
        total_steps=6,
        span=Span(0, None, 0, 6, True),
        learning_rate=lambda step: learning_rate(train, step, 6),
        share=SHARE,
        train=SimpleNamespace(lengths=np.array(LENGTHS)),
        progress=Progress(folder / "progress.json", False),
        control=SimpleNamespace(ranks=1),
        accelerator=SimpleNamespace(device=torch.device("cpu"), scaler=None),
        model=SimpleNamespace(model=model),
    )


def run(folder: Path, position: Position, until: int) -> dict[str, Any]:
    """Steps up to this one, each with a loss of its own, and the points that they left."""
    training = make_training(folder, position)
    curve = CurveWriter(folder)
    log = Log(training, curve)
    batches = log.batches(iter([{} for _ in range(position.step, until)]))
    for step in range(position.step, until):
        next(batches)
        position.step = step + 1
        position.window_loss += 1.5**step
        position.window_targets += step + 1
        log.step(StepResult(1.5**step, step + 1, float(step), True), seconds=0.5)
    curve.close()
    return {
        tag: list(zip(points.steps, points.values, strict=True)) for tag, points in read_points(folder).curves.items()
    }


def test_points_of_a_window_that_was_cut_are_those_of_one_that_was_not(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Position(), 6)
    first = Position()
    assert run(tmp_path / "first", first, 2) == {}
    parts = run(tmp_path / "second", Position(**asdict(first)), 6)
    exact = [tag for tag in whole if tag.startswith("train/")]
    names = ["gradient_norm", "learning_rate", "loss", "padding_share", "steps_left_out"]
    assert sorted(exact) == [f"train/{name}" for name in names]
    assert {tag: parts[tag] for tag in exact} == {tag: whole[tag] for tag in exact}
    assert whole["train/loss"][0] == (3, pytest.approx((1 + 1.5 + 2.25) / 6))


def test_speeds_count_tokens_without_padding_and_say_how_much_was_padded(tmp_path: Path) -> None:
    points = run(tmp_path / "whole", Position(), 6)
    # Two epochs of four rows in three steps each: 1.5 epochs a window of 1.5 s.
    tokens = sum(LENGTHS[row] for step in range(3) for row in SHARE.step_rows(step))
    places = sum(2 * max(LENGTHS[row] for row in SHARE.step_rows(step)) for step in range(3))
    assert points["speed/tokens_per_second"][0] == (3, pytest.approx(tokens / 1.5))
    assert points["speed/trained_tokens_per_second"][0] == (3, pytest.approx(6 / 1.5))
    assert points["train/padding_share"][0] == (3, pytest.approx(1 - tokens / places))
    assert points["seconds/data"][0][1] + points["seconds/compute"][0][1] == pytest.approx(1.5)
    assert "speed/mfu" not in points and "speed/gpu_memory_peak" not in points, "a CPU has no known peak"


def test_perplexity_is_never_an_overflow() -> None:
    assert perplexity(0.0) == 1.0 and perplexity(1e6) == float("inf")
