"""A diverse subset: rows that differ from each other in their words, in place of the first ones or of any."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"\w+")
BITS = 32
Sums = npt.NDArray[np.int16]
"""(rows, BITS): how a row's distinct words lean to either side, one column a direction."""


def word_sums(texts: Sequence[str]) -> Sums:
    """For each text and direction: its distinct words on one side, less those on the other.

    These are the sums of simhash (Charikar 2002, Similarity estimation techniques from rounding algorithms), in whole
    numbers, so that they are the same on every machine.
    """
    words = [set(WORD.findall(text.lower())) or {""} for text in texts]
    known = {word: zlib.crc32(word.encode(errors="replace")) for word in set(chain.from_iterable(words))}
    hashes = np.array([known[word] for row in words for word in row], dtype=np.uint64)
    # crc32 is linear: similar words would lean alike. This mixes it (the finalizer of MurmurHash3).
    hashes = (hashes ^ (hashes >> np.uint64(16))) * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)
    hashes = (hashes ^ (hashes >> np.uint64(13))) * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)
    sides = np.unpackbits(hashes.astype(">u4").view(np.uint8).reshape(-1, BITS // 8), axis=1).astype(np.int16)
    lengths = np.array([len(row) for row in words])
    firsts = np.cumsum(lengths) - lengths
    sums: Sums = np.add.reduceat(2 * sides - 1, firsts, axis=0, dtype=np.int16)
    return sums


def pick(sums: Sums, chance: npt.NDArray[np.uint64], number: int) -> npt.NDArray[np.int64]:
    """So many rows, ascending: cells of rows with like words take turns, each giving the row of the least `chance`.

    A cell is what lies on one side of the median in each of log2(number) directions, so that what all rows have in
    common counts for nothing. A thousand near copies of a row lie in few cells, and few of them are taken.
    """
    if number >= len(sums):
        return np.arange(len(sums))
    bits = min(BITS, max(1, (number - 1).bit_length()))
    above = sums[:, :bits] > np.median(sums[:, :bits], axis=0)
    cells = above @ (np.uint64(1) << np.arange(bits, dtype=np.uint64))
    order = np.lexsort((chance, cells))
    first = np.flatnonzero(np.diff(cells[order], prepend=~cells[order[:1]]))
    turns = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    picked: npt.NDArray[np.int64] = np.sort(order[np.lexsort((chance[order], turns))[:number]])
    return picked
