"""Batches: which rows each micro-batch holds, as a function of seed and step, and how they are stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from hpcft.data.features import Features

Batch = dict[str, torch.Tensor]


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """(rows,): the order of all rows in this epoch, from nothing but seed and epoch."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


@dataclass(frozen=True)
class Order:
    """The endless stream of rows, each once an epoch; any stretch of it is found without what came before."""

    seed: int
    rows: int

    def stretch(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """(count,): row numbers at positions start to start + count of the stream.

        >>> Order(seed=0, rows=3).stretch(2, 3)   # the last of epoch 0 and two of epoch 1
        array([1, 1, 2])
        """
        pieces = []
        while count > 0:
            epoch, position = divmod(start, self.rows)
            piece = epoch_order(self.seed, epoch, self.rows)[position : position + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return np.concatenate(pieces)


@dataclass(frozen=True)
class Share:
    """One process's part of every step: micro-batch m of rank r is number m * ranks + r of the step.

    That number, not the rank, keys the randomness, so the same rows meet the same dropout on any number of GPUs.
    """

    order: Order
    batch_size: int
    micro_batch_size: int
    rank: int
    ranks: int

    @property
    def accumulation(self) -> int:
        return self.batch_size // (self.micro_batch_size * self.ranks)

    def step_rows(self, step: int) -> npt.NDArray[np.int64]:
        """(batch_size,): all rows of this step, over all processes."""
        return self.order.stretch(step * self.batch_size, self.batch_size)

    def micro_rows(self, step: int, micro: int) -> npt.NDArray[np.int64]:
        """(micro_batch_size,): rows of this process's micro-batch."""
        first = (micro * self.ranks + self.rank) * self.micro_batch_size
        return self.step_rows(step)[first : first + self.micro_batch_size]

    def micro_number(self, step: int, micro: int) -> int:
        """Which micro-batch of the whole run this is, counted over all processes."""
        return (step * self.accumulation + micro) * self.ranks + self.rank

    def batches(self, first_step: int, total_steps: int) -> Iterator[list[int]]:
        """Rows of each micro-batch of this process from `first_step` on."""
        for step in range(first_step, total_steps):
            for micro in range(self.accumulation):
                yield self.micro_rows(step, micro).tolist()


class _Rows(Dataset[int]):
    """A dataset whose items are the row numbers; the collator looks them up in the mapped files."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class Collator:
    """Stacks rows, padded on the right to the longest."""

    features: Features
    pad: int

    def __call__(self, rows: Sequence[int]) -> Batch:
        """{"tokens", "mask", "trained"}, each (B, T): ids, which are no padding, and which are targets.

        Rows of 3 and 2 tokens with pad 0: tokens [[5, 6, 7], [8, 9, 0]], mask [[1, 1, 1], [1, 1, 0]].
        """
        picked = [self.features[row] for row in rows]
        longest = max(len(tokens) for tokens, _ in picked)
        tokens = torch.full((len(rows), longest), self.pad, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        trained = torch.zeros((len(rows), longest), dtype=torch.bool)
        for index, (ids, marks) in enumerate(picked):
            tokens[index, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
            mask[index, : len(ids)] = 1
            trained[index, : len(ids)] = torch.from_numpy(np.array(marks))
        return {"tokens": tokens, "mask": mask, "trained": trained}


def training_loader(
    features: Features, share: Share, first_step: int, total_steps: int, pad: int, workers: int
) -> DataLoader[int]:
    """A loader that brings this process's micro-batches from `first_step` on, stacked by `workers` processes."""
    return DataLoader(
        _Rows(len(features)),
        batch_sampler=_Listing(share, first_step, total_steps),
        collate_fn=Collator(features, pad),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # of its own: its base seed must not be drawn from the training's randomness
    )


@dataclass(frozen=True)
class _Listing:
    """The batch sampler that DataLoader wants: it can be iterated and has a length."""

    share: Share
    first_step: int
    total_steps: int

    def __iter__(self) -> Iterator[list[int]]:
        return self.share.batches(self.first_step, self.total_steps)

    def __len__(self) -> int:
        return (self.total_steps - self.first_step) * self.share.accumulation
