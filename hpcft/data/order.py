"""The order of rows: which rows each step holds, as a function of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

POOL = 64
"""Steps whose rows are sorted by length together: few enough that a pool is a fair sample of the rows, and enough that
the rows of a step are nearly of one length."""


@dataclass(frozen=True, eq=False)
class RowOrder:
    """The endless stream of rows, each once an epoch, in steps of equally many; one of them may straddle two epochs.

    Any step is found without those before it.
    """

    lengths: Integers
    """(rows,): tokens of each row."""
    seed: int
    batch_size: int
    bucketed: bool
    """Whether the rows of a step are of like length; otherwise they are in random order."""
    phase: int = 0
    """Another one has another order."""

    def step_rows(self, step: int) -> Integers:
        """(batch_size,): row numbers of this step, over all processes.

        >>> RowOrder(np.full(3, 9), seed=0, batch_size=2, bucketed=False).step_rows(1)  # of epoch 0, and of epoch 1
        array([1, 1])
        """
        start, count, pieces = step * self.batch_size, self.batch_size, []
        while count > 0:
            epoch, position = divmod(start, len(self.lengths))
            piece = self._epoch(epoch)[position : position + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return np.concatenate(pieces)

    @cached_property
    def _epoch(self) -> Callable[[int], Integers]:
        return lru_cache(maxsize=2)(self._arrange)

    def _arrange(self, epoch: int) -> Integers:
        """(rows,): the order of all rows in this epoch.

        What belongs to the steps that straddle two epochs, at both ends, stays in random order.
        """
        chance = _chance(self.seed, epoch, self.phase)
        order = chance.permutation(len(self.lengths))
        head = -epoch * len(order) % self.batch_size  # rows that the last step of the epoch before still takes
        steps = (len(order) - head) // self.batch_size
        if not self.bucketed or steps < 1:
            return order
        inner = order[head : head + steps * self.batch_size]
        pools = np.arange(len(inner)) // (self.batch_size * _pool(steps))
        inner = inner[np.lexsort((self.lengths[inner], pools))]
        turns = chance.permutation(steps)
        order[head : head + len(inner)] = inner.reshape(steps, self.batch_size)[turns].ravel()
        return order


@dataclass(frozen=True, eq=False)
class TokenOrder:
    """The same stream in steps of about equally many tokens: the same number in each epoch, none without a row.

    The rows of an epoch lie one behind the other, are cut at equal distances, and a row belongs to the step that its
    middle falls in.
    """

    lengths: Integers
    """(rows,): tokens of each row."""
    seed: int
    epoch_steps: int
    """Steps of one epoch; so few that the longest row is not longer than the tokens of a step."""
    bucketed: bool
    phase: int = 0

    def step_rows(self, step: int) -> Integers:
        """(rows of this step,): row numbers, over all processes."""
        epoch, number = divmod(step, self.epoch_steps)
        order, firsts, turns = self._epoch(epoch)
        turn = turns[number]
        return order[firsts[turn] : firsts[turn + 1]]

    @cached_property
    def _epoch(self) -> Callable[[int], tuple[Integers, Integers, Integers]]:
        return lru_cache(maxsize=2)(self._arrange)

    def _arrange(self, epoch: int) -> tuple[Integers, Integers, Integers]:
        """(rows,): the order; (steps + 1,): the place of each step's first row in it; (steps,): which comes when."""
        chance = _chance(self.seed, epoch, self.phase)
        order = chance.permutation(len(self.lengths))
        turns = np.arange(self.epoch_steps)
        if self.bucketed:
            pools = self._places(order) // _pool(self.epoch_steps)
            lengths = self.lengths[order]
            # Up and down in turns: a step may lie across two pools, whose rows are then of like length too.
            order = order[np.lexsort((np.where(pools % 2, -lengths, lengths), pools))]
            turns = chance.permutation(self.epoch_steps)
        return order, np.searchsorted(self._places(order), np.arange(self.epoch_steps + 1)), turns

    def _places(self, order: Integers) -> Integers:
        """(rows,): the stretch, of epoch_steps equal ones, in which the middle of each row lies, in this order."""
        lengths = self.lengths[order]
        ends = np.cumsum(lengths)
        places: Integers = (2 * ends - lengths) * self.epoch_steps // (2 * ends[-1])
        return places


def _chance(seed: int, epoch: int, phase: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, epoch, phase] if phase else [seed, epoch]))


def _pool(steps: int) -> int:
    """Steps of a pool: at most half of the epoch, so that rows meet others in the next one."""
    return max(1, min(POOL, -(-steps // 2)))
