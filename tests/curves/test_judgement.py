"""What is said of curves whose story is known: with and without noise, whatever the number of points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hpcft.curves.judgement import judge
from hpcft.curves.points import Points, make_points


def curve(function: Callable[[float], float], steps: int = 300, every: int = 1, noise: float = 0.0) -> Points:
    """A loss that is a function of the share of the run that is done."""
    random = np.random.default_rng(every)
    places = range(0, steps + 1, every)
    return make_points([(step, 0.0, function(step / steps) + noise * float(random.normal())) for step in places])


def falling(to: float, speed: float = 1.0) -> Callable[[float], float]:
    return lambda done: 3.0 - (3.0 - to) * done**speed


def settling(to: float) -> Callable[[float], float]:
    """Down to a level in the first third, and flat from there."""
    return lambda done: to + (3.0 - to) * max(0.0, 1 - 3 * done) ** 2


def turning(at: float) -> Callable[[float], float]:
    """Down until a share of the run is done, and up again."""
    return lambda done: 2.0 + abs(done - at)


STORIES = {
    "overfits since step 150: ": (falling(0.5), turning(0.5)),
    "diverges since step 150: ": (turning(0.5), turning(0.5)),
    "still learning: ": (falling(1.0), falling(1.2)),
    "begins to overfit: ": (falling(1.0), settling(2.0)),
    "has levelled off: ": (settling(1.5), settling(2.0)),
    "underfits: ": (lambda done: 3.0, lambda done: 3.0),
}


@pytest.mark.parametrize("begins", STORIES)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_each_story_is_told(begins: str, noise: float) -> None:
    train, validation = STORIES[begins]
    said = judge(curve(train, noise=10 * noise), curve(validation, every=10, noise=noise))
    first = begins.rstrip(": ").partition(" since step ")
    assert said.startswith(first[0]), said
    if first[2]:
        assert abs(int(said.partition("since step ")[2].partition(":")[0]) - int(first[2])) <= 20, said


def test_the_words_name_the_best_loss_and_where_it_was() -> None:
    said = judge(curve(falling(0.5)), curve(turning(0.5), every=30))
    assert said == (
        "overfits since step 150: the best validation loss was 2.0000 at step 150, it is 2.5000 at step 300, while the "
        "training loss falls on"
    )
    said = judge(curve(falling(1.0)), curve(falling(1.2), every=20))
    assert said.endswith("fell by 33.3% over the last third, from step 200 on; more steps may help")


def test_what_cannot_be_told_is_not() -> None:
    down, none = curve(falling(1.0)), make_points([])
    assert judge(none, none) == "nothing to judge: no training loss yet"
    assert judge(down, none).startswith("no verdict on overfitting: the run has no validation loss")
    assert judge(down, curve(turning(0.2), every=100)) == "too few evaluations to tell: 4, and 5 are needed"
    assert judge(curve(lambda done: np.nan if done == 1 else 1.0), down) == (
        "broken: the training loss at step 300 is no number"
    )


def test_one_bad_evaluation_at_the_end_is_no_overfitting_and_neither_is_scatter() -> None:
    good = curve(falling(1.2), every=10)
    values = good.values.copy()
    values[-1] += 0.5
    assert "overfits" not in judge(curve(falling(1.0)), Points(good.steps, good.wall_times, values))
    for seed in range(50):
        random = np.random.default_rng(seed)
        flat = make_points([(step, 0.0, 2.0 + 0.05 * float(random.normal())) for step in range(0, 301, 10)])
        assert not judge(curve(settling(1.5)), flat).startswith(("overfits", "diverges")), seed


def test_a_verdict_needs_no_training_point_beside_each_evaluation() -> None:
    sparse = curve(falling(0.5), every=50)
    assert judge(sparse, curve(turning(0.5), every=7)).startswith("overfits since step 147")
