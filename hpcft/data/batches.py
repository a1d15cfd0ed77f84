"""Batches: each process's micro-batches of every step, and how their rows are stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from hpcft.data import packing
from hpcft.data.features import Features
from hpcft.data.order import RowOrder, TokenOrder
from hpcft.data.packing import MicroBatch
from hpcft.data.randomness import set_host_randomness

Batch = dict[str, torch.Tensor]
Numbered = tuple[int, MicroBatch]
NO_CLASS = -100
"""The label of a row that there is not; torch's cross-entropy passes over it."""
MOST = 1 << 20
"""More micro-batches than a step ever has."""


@dataclass(frozen=True, eq=False)
class Share:
    """One process's part of every step of a phase: its pass m is micro-batch m * ranks + rank of the step.

    Which rows a micro-batch holds does not depend on the number of processes, and its number, not the rank, keys the
    randomness: so the same rows meet the same dropout on any number of GPUs.
    """

    order: RowOrder | TokenOrder
    grouping: str
    """`plain`, `bucketed` or `packed`, as in the recipe."""
    micro_batch_size: int
    """Rows of a micro-batch; where they are packed, or a step is given in tokens, its room: so many longest lines."""
    longest: int
    """Tokens of a line at most."""
    rank: int
    ranks: int
    begins: int = 0
    """The step of the run at which the order begins: that of its phase."""

    def step_rows(self, step: int) -> list[int]:
        """All rows of this step of the run, over all processes."""
        rows: list[int] = self.order.step_rows(step - self.begins).tolist()
        return rows

    def passes(self, step: int) -> int:
        """Forward passes of each process in this step; where there are no rows for one, it makes an empty one."""
        return -(-len(self.micro_batches(step)) // self.ranks)

    def lines(self, step: int, number: int) -> MicroBatch:
        """The rows of one of this process's passes."""
        batches, place = self.micro_batches(step), number * self.ranks + self.rank
        return batches[place] if place < len(batches) else []

    def micro_number(self, step: int, number: int) -> int:
        """Which micro-batch of the whole run this pass is, counted over all processes, with gaps between steps."""
        return step * MOST + number * self.ranks + self.rank

    def batches(self, first_step: int, total_steps: int) -> Iterator[Numbered]:
        """Each pass of this process from `first_step` on: its number in the run, and its rows."""
        for step in range(first_step, total_steps):
            for number in range(self.passes(step)):
                yield self.micro_number(step, number), self.lines(step, number)

    def padding(self, step: int) -> tuple[int, int]:
        """Tokens of this step, and what they take with padding, over all processes."""
        taken = [packing.room_taken(batch, self.order.lengths) for batch in self.micro_batches(step)]
        return sum(real for real, _ in taken), sum(padded for _, padded in taken)

    @cached_property
    def micro_batches(self) -> Callable[[int], list[MicroBatch]]:
        """Of a step: the rows of all its micro-batches, over all processes."""
        return lru_cache(maxsize=64)(self._micro_batches)  # the loader is some steps ahead of the training

    def _micro_batches(self, step: int) -> list[MicroBatch]:
        rows, lengths, count = self.order.step_rows(step - self.begins), self.order.lengths, self.micro_batch_size
        by_tokens = isinstance(self.order, TokenOrder)
        if self.grouping != "plain" or by_tokens:
            rows = packing.by_length(rows, lengths)
        if self.grouping == "packed":
            if by_tokens:
                return packing.packed_by_room(rows, lengths, count, self.longest)
            return packing.packed_by_count(rows, lengths, len(rows) // count, self.longest)
        if by_tokens:
            return packing.by_room(rows, lengths, count * self.longest)
        return packing.by_count(rows, count)


class _Passes(Dataset[Numbered]):
    """A dataset whose items are what is asked for; the collator looks the rows up in the mapped files."""

    def __getitem__(self, one: Numbered) -> Numbered:
        return one


@dataclass(frozen=True)
class Collator:
    """Stacks lines of rows, padded on the right to the longest."""

    features: Features
    pad: int

    def __call__(self, lines: Sequence[Sequence[int]]) -> Batch:
        """{"tokens", "mask", "trained"}, each (B, T): ids, whose they are, and which are targets; of rows with labels
        what `_classes` says.

        Lines [0] and [1] with rows of 3 and 2 tokens and pad 0: tokens [[5, 6, 7], [8, 9, 0]], mask [[1, 1, 1],
        [1, 1, 0]]; line [0, 1]: tokens [[5, 6, 7, 8, 9]], mask [[1, 1, 1, 2, 2]]. Of no line: two tokens of padding
        that are seen but are no targets, so that the forward pass has something, and all gradients are zero.
        """
        if not lines:
            return self._nothing()
        if self.features.labels is not None:
            return self._classes([row for line in lines for row in line], self.features.labels)
        picked = [[self.features[row] for row in line] for line in lines]
        longest = max(sum(len(tokens) for tokens, _ in line) for line in picked)
        tokens = np.full((len(lines), longest), self.pad, dtype=np.int64)
        mask = np.zeros((len(lines), longest), dtype=np.int64)
        trained = np.zeros((len(lines), longest), dtype=np.bool_)
        for index, line in enumerate(picked):
            start = 0
            for number, (ids, marks) in enumerate(line, 1):
                place = (index, slice(start, start := start + len(ids)))
                tokens[place], mask[place], trained[place] = ids, number, marks
        return {
            "tokens": torch.from_numpy(tokens),
            "mask": torch.from_numpy(mask),
            "trained": torch.from_numpy(trained),
        }

    def _classes(self, rows: Sequence[int], labels: npt.NDArray[np.int32]) -> Batch:
        """{"tokens", "mask", "labels"} and, where the model is told, "segments": (B, T), and (B,) of the labels.

        Of rows whose texts are read apart (2 B, T): all the first ones, then all the second ones. Rows [5, 6, 7] and
        [8, 9, 6], of which 2 and 1 tokens are the first text, make [[5, 6], [8, 0], [7, 0], [9, 6]].
        """
        features, pieces = self.features, [(row, 0, int(self.features.lengths[row])) for row in rows]
        if features.firsts is not None:
            firsts = [(row, 0, int(features.firsts[row])) for row in rows]
            pieces = firsts + [(row, cut, end) for (row, _, cut), (_, _, end) in zip(firsts, pieces, strict=True)]
        shape = (len(pieces), max(end - start for _, start, end in pieces))
        made = {"tokens": np.full(shape, self.pad, dtype=np.int64), "mask": np.zeros(shape, dtype=np.int64)}
        if features.segments is not None:
            made["segments"] = np.zeros(shape, dtype=np.int64)
        for index, (row, start, end) in enumerate(pieces):
            place, offset = (index, slice(0, end - start)), int(features.offsets[row])
            made["tokens"][place], made["mask"][place] = features.tokens[offset + start : offset + end], 1
            if features.segments is not None:
                made["segments"][place] = features.segments[offset + start : offset + end]
        made["labels"] = labels[rows].astype(np.int64)
        return {name: torch.from_numpy(array) for name, array in made.items()}

    def _nothing(self) -> Batch:
        """A batch of no row."""
        count = 1 if self.features.firsts is None else 2
        made = {
            "tokens": torch.full((count, 2), self.pad, dtype=torch.long),
            "mask": torch.ones((count, 2), dtype=torch.long),
        }
        if self.features.segments is not None:
            made["segments"] = torch.zeros((count, 2), dtype=torch.long)
        if self.features.labels is not None:
            return {**made, "labels": torch.full((1,), NO_CLASS)}
        return {**made, "trained": torch.zeros((1, 2), dtype=torch.bool)}


@dataclass(frozen=True)
class Keyed:
    """Stacks each micro-batch under the randomness of its number, so that a collator that draws (tokens to mask, say)
    draws the same in every job, with any number of workers."""

    collate: Callable[[Sequence[Sequence[int]]], Batch]
    seed: int

    def __call__(self, passes: Sequence[Numbered]) -> Batch:
        """Of the one pass that a loader asks for at a time."""
        ((number, lines),) = passes
        set_host_randomness(self.seed, "batch", number)
        return self.collate(lines)


def training_loader(
    collate: Callable[[Sequence[Sequence[int]]], Batch], share: Share, first_step: int, total_steps: int, workers: int
) -> DataLoader[Numbered]:
    """A loader that brings this process's micro-batches from `first_step` on, stacked by `workers` processes."""
    return DataLoader(
        _Passes(),
        batch_sampler=_Listing(share, first_step, total_steps),
        collate_fn=Keyed(collate, share.order.seed),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # of its own: its base seed must not be drawn from the training's randomness
    )


@dataclass(frozen=True, eq=False)
class _Listing:
    """The batch sampler that DataLoader wants: it can be iterated, and each of its batches is one pass."""

    share: Share
    first_step: int
    total_steps: int

    def __iter__(self) -> Iterator[list[Numbered]]:
        return ([one] for one in self.share.batches(self.first_step, self.total_steps))
