"""The rate, the randomness, and what is compared before a job goes on."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from hpcft.data.randomness import key, set_randomness
from hpcft.sections import Train
from hpcft.train.optimizer import learning_rate
from hpcft.train.resume import compare


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    train = Train(steps=10, learning_rate=1.0, warmup_steps=2)
    rates = [learning_rate(train, step, 10) for step in range(11)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0])


def test_randomness_depends_on_place_and_purpose_alone() -> None:
    def draw(*place: object) -> list[float]:
        set_randomness(*place)  # type: ignore[arg-type]
        return [float(torch.rand(1)), float(np.random.rand()), random.random()]

    first = draw(0, "step", 5)
    torch.rand(100)
    assert draw(0, "step", 5) == first
    others = [draw(0, "step", 6), draw(1, "step", 5), draw(0, "model", 5)]
    assert all(one != other for other in others for one in [first])
    assert len({key(0, "step", number) for number in range(1000)}) == 1000


def test_the_generator_of_a_gpu_is_set_though_cuda_begins_only_now(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator()

    def current_device() -> int:  # what makes the list of generators, empty until then
        monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
        return 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", ())
    monkeypatch.setattr(torch.cuda, "current_device", current_device)
    set_randomness(0, "step", 5)
    assert generator.initial_seed() == key(0, "step", 5)


@pytest.mark.parametrize(
    ("change", "exactness"),
    [
        ({}, "bit-exact"),
        ({"threads": 2}, "sample-exact"),
        ({"data": "other"}, "refused"),
        ({"seed": 1}, "refused"),
        ({"optimizer": "adamw-8bit"}, "refused"),
    ],
)
def test_a_changed_precondition_is_named(change: dict[str, object], exactness: str) -> None:
    before = {"data": "hash", "seed": 0, "threads": 1, "optimizer": "adamw"}
    level, words = compare(before, {**before, **change})
    assert level == exactness
    assert words == [f"{name} {before[name]} -> {value}" for name, value in change.items()]


def test_what_may_give_other_bits_each_time_is_never_called_bit_exact() -> None:
    loose = {"data": "hash", "deterministic": False}
    assert compare(loose, loose) == ("sample-exact", [])
