"""Randomness as a function of where training is: nothing of it needs to be saved, nothing can be lost."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def key(seed: int, purpose: str, number: int) -> int:
    """63 bits that depend on all three; `number` is a micro-batch counted over the whole run."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def set_randomness(seed: int, purpose: str, number: int = 0) -> None:
    """Set every generator that models draw from."""
    set_host_randomness(seed, purpose, number)
    if torch.cuda.is_available():
        device = torch.cuda.current_device()  # first: it makes the list of generators, which is empty before
        torch.cuda.default_generators[device].manual_seed(key(seed, purpose, number))


def set_host_randomness(seed: int, purpose: str, number: int = 0) -> None:
    """The same without the GPU's, which no process that stacks batches may touch."""
    value = key(seed, purpose, number)
    random.seed(value)
    np.random.seed(value % 2**32)
    # The generator itself: torch.manual_seed takes 200 times as long on a CUDA build without a GPU.
    torch.default_generator.manual_seed(value)
