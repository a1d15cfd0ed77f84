"""Which rows each step holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.data.order import Integers, RowOrder, TokenOrder
from hpcft.sections import Train

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=60)


def by_rows(lengths: list[int], seed: int, batch_size: int, bucketed: bool) -> RowOrder:
    return RowOrder(np.array(lengths), seed, batch_size, bucketed)


def by_tokens(lengths: list[int], seed: int, batch_tokens: int, bucketed: bool) -> TokenOrder:
    steps = Train(batch_tokens=batch_tokens).model_copy(update={"batch_size": None})
    return TokenOrder(
        np.array(lengths), seed, int(steps.epoch_steps(len(lengths), sum(lengths), max(lengths))), bucketed
    )


def mixed(rows: int, seed: int = 0) -> Integers:
    """(rows,): lengths as prompts have them, many short ones and a few long."""
    drawn = np.random.default_rng(seed).lognormal(4.5, 0.7, rows)
    return np.clip(drawn, 10, 512).astype(np.int64)


@given(LENGTHS, st.integers(0, 5), st.integers(1, 20), st.booleans())
def test_each_row_comes_once_in_every_epoch(lengths: list[int], seed: int, batch_size: int, bucketed: bool) -> None:
    order, rows = by_rows(lengths, seed, batch_size, bucketed), len(lengths)
    steps = [order.step_rows(step) for step in range(-(-3 * rows // batch_size))]
    assert all(len(step) == batch_size for step in steps)
    stream = np.concatenate(steps)[: 3 * rows].reshape(3, rows)
    assert all(sorted(epoch) == list(range(rows)) for epoch in stream.tolist())


@given(LENGTHS, st.integers(0, 5), st.integers(60, 400), st.booleans())
def test_so_it_does_where_a_step_is_given_in_tokens_and_no_step_is_empty(
    lengths: list[int], seed: int, batch_tokens: int, bucketed: bool
) -> None:
    order = by_tokens(lengths, seed, batch_tokens, bucketed)
    for epoch in range(3):
        steps = [order.step_rows(epoch * order.epoch_steps + step) for step in range(order.epoch_steps)]
        assert all(len(step) for step in steps)
        assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("bucketed", [False, True])
def test_a_step_holds_about_as_many_tokens_as_are_asked_for(bucketed: bool) -> None:
    lengths = mixed(3000)
    order = by_tokens(lengths.tolist(), 1, 4096, bucketed)
    held = [int(lengths[order.step_rows(step)].sum()) for step in range(order.epoch_steps)]
    assert max(abs(tokens - 4096) for tokens in held) <= 512 + 10
    assert np.mean(held) == pytest.approx(4096, rel=0.02)


@pytest.mark.parametrize("bucketed", [False, True])
def test_any_step_is_found_without_those_before_it(bucketed: bool) -> None:
    lengths = mixed(101).tolist()
    whole: tuple[RowOrder | TokenOrder, ...] = (by_rows(lengths, 3, 8, bucketed), by_tokens(lengths, 3, 1000, bucketed))
    late: tuple[RowOrder | TokenOrder, ...] = (by_rows(lengths, 3, 8, bucketed), by_tokens(lengths, 3, 1000, bucketed))
    for early, fresh in zip(whole, late, strict=True):
        steps = [early.step_rows(step).tolist() for step in range(60)]
        assert [fresh.step_rows(step).tolist() for step in reversed(range(60))] == steps[::-1]


@pytest.mark.parametrize("bucketed", [False, True])
def test_epochs_and_seeds_differ_in_which_rows_meet(bucketed: bool) -> None:
    lengths = mixed(160).tolist()
    orders = [by_rows(lengths, 0, 8, bucketed), by_rows(lengths, 1, 8, bucketed)]
    seen = [
        {frozenset(order.step_rows(step).tolist()) for step in range(epoch * 20, epoch * 20 + 20)}
        for order in orders
        for epoch in range(2)
    ]
    assert all(len(a & b) <= 2 for place, a in enumerate(seen) for b in seen[:place])


def test_rows_of_a_bucketed_step_are_of_like_length_and_the_steps_are_not_in_order_of_it() -> None:
    lengths = mixed(1600)
    order = RowOrder(lengths, 0, 16, bucketed=True)
    steps = [lengths[order.step_rows(step)] for step in range(100)]
    assert np.median([step.mean() / step.max() for step in steps]) > 0.95
    means = np.array([step.mean() for step in steps])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
