"""Packing: how the rows of a step are laid into lines, and lines into micro-batches, with little padding."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hpcft.data.order import Integers

Line = list[int]
"""Row numbers, one behind the other."""
MicroBatch = list[Line]
"""Lines of one forward pass; empty where a process has nothing left to do in a step."""


def by_length(rows: Integers, lengths: Integers) -> Integers:
    """The same rows, longest first: so the largest micro-batch of a step comes first, and memory is asked for once."""
    return rows[np.argsort(-lengths[rows], kind="stable")]


def by_count(rows: Integers, count: int) -> list[MicroBatch]:
    """Micro-batches of so many rows, each row in a line of its own."""
    return [[[row] for row in part] for part in rows.reshape(-1, count).tolist()]


def by_room(rows: Integers, lengths: Integers, room: int) -> list[MicroBatch]:
    """Micro-batches of at most so many tokens with padding, each row in a line of its own; rows come longest first.

    Rows of 6, 3, 3 and 2 tokens with room for 9 make [6] and [3, 3, 2].
    """
    longest_first = lengths[rows].tolist()
    cuts = _cut(longest_first, room)
    wanted = even(len(cuts) - 1)
    # The least room that needs no more micro-batches than wanted: so they are about even.
    low, high = longest_first[0], room
    while low < high:
        middle = (low + high) // 2
        if len(_cut(longest_first, middle)) - 1 <= wanted:
            high = middle
        else:
            low = middle + 1
    cuts = _cut(longest_first, low)
    found: list[MicroBatch] = [[[row] for row in rows[first:end].tolist()] for first, end in pairwise(cuts)]
    return found + [[] for _ in range(wanted - len(found))]


def _cut(longest_first: Sequence[int], room: int) -> list[int]:
    """Borders of micro-batches that are filled one after the other: 0, ..., number of rows."""
    cuts = [0]
    while cuts[-1] < len(longest_first):
        cuts.append(min(len(longest_first), cuts[-1] + max(1, room // longest_first[cuts[-1]])))
    return cuts


def even(number: int) -> int:
    """How many micro-batches a step gets that needs so many: 1, 2, or a multiple of 4.

    It must not depend on the number of processes, or a change of that would change the micro-batches, and mostly be a
    multiple of it, or some would wait for others.
    """
    return number if number <= 2 else -(-number // 4) * 4


def pack(rows: Integers, lengths: Integers, longest: int, numbers: Sequence[int]) -> list[Line]:
    """The rows in lines of at most `longest` tokens; none if they fit in none of these numbers of lines.

    Of the numbers the one with the least padding is taken, and the first that pads under one in a hundred.
    Rows come longest first, and each goes to the line that is shortest so far.
    """
    sizes = lengths[rows].tolist()
    total = sum(sizes)
    best: list[Line] = []
    fewest = 0
    for number in numbers:
        if number * longest < total:
            continue
        packed, filled = _level(rows.tolist(), sizes, number)
        if filled <= longest and (not best or number * filled < fewest):
            best, fewest = packed, number * filled
        if best and fewest * 0.99 <= total:
            break
    return best


def _level(rows: Sequence[int], sizes: Sequence[int], number: int) -> tuple[list[Line], int]:
    """So many lines, filled as evenly as may be, and the tokens of the longest."""
    lines: list[Line] = [[] for _ in range(number)]
    filled = [(0, place) for place in range(number)]
    for row, size in zip(rows, sizes, strict=True):
        tokens, place = filled[0]
        lines[place].append(row)
        heapq.heapreplace(filled, (tokens + size, place))
    return [line for line in lines if line], max(filled)[0]


def packed_by_count(rows: Integers, lengths: Integers, number: int, longest: int) -> list[MicroBatch]:
    """So many micro-batches of equally many lines of at most `longest` tokens."""
    return _deal(pack(rows, lengths, longest, range(number, len(rows) + 1, number)), lengths, number)


def packed_by_room(rows: Integers, lengths: Integers, count: int, longest: int) -> list[MicroBatch]:
    """Micro-batches of at most `count` lines of at most `longest` tokens; all have equally many."""
    number = even(-(-int(lengths[rows].sum()) // (count * longest)))
    while not (lines := pack(rows, lengths, longest, range(number, number * count + 1, number))):
        number = even(number + 1)
    return _deal(lines, lengths, number)


def _deal(lines: list[Line], lengths: Integers, number: int) -> list[MicroBatch]:
    """So many micro-batches, lines of like length in each."""
    lines = sorted(lines, key=lambda line: -int(lengths[line].sum()))
    each = -(-len(lines) // number)
    return [lines[first : first + each] for first in range(0, number * each, each)]


def room_taken(batch: MicroBatch, lengths: Integers) -> tuple[int, int]:
    """Tokens of a micro-batch, and what they take with padding."""
    sizes = [int(lengths[line].sum()) for line in batch]
    return sum(sizes), len(sizes) * max(sizes, default=0)
