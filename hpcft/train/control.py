"""What the processes of a job agree on: whether to stop, and sums that come out the same in every job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


class Stop(Exception):
    """Every process has seen the stop flag: leave what you are doing; nothing is lost at a step boundary."""


@dataclass
class Control:
    """A gloo group beside the training's own, so that agreeing never waits for the GPU."""

    rank: int
    ranks: int
    stop_file: Path
    group: Any = None
    on_look: Callable[[float], None] = lambda seconds: None
    """Gets the longest time between two looks of late, which is how late we may see the flag."""
    longest: float = 0.0
    last_look: float | None = None

    def stop_requested(self) -> bool:
        """Whether the supervisor wants us to stop; the same answer on every process, from rank 0's look."""
        now = time.monotonic()
        if self.last_look is not None:
            # Of late: the first step of a job takes several times as long as the others.
            self.longest = max(now - self.last_look, 0.8 * self.longest)
            self.on_look(self.longest)
        self.last_look = now
        stop = self.rank == 0 and self.stop_file.exists()
        return bool(self.share(int(stop)))

    def forget_look(self) -> None:
        """Do not count the time until the next look: what came between is measured by itself."""
        self.last_look = None

    def poll(self) -> None:
        """Raise Stop on every process, or on none."""
        if self.stop_requested():
            raise Stop

    def share(self, value: int) -> int:
        """Rank 0's value, on every process."""
        if self.ranks == 1:
            return value
        tensor = torch.tensor([value])
        dist.broadcast(tensor, src=0, group=self.group)
        return int(tensor)

    def total(self, value: float) -> float:
        """Sum over the processes, added in the order of their ranks: one result, bit for bit, in every job."""
        if self.ranks == 1:
            return value
        mine = torch.tensor([value], dtype=torch.float64)
        every = [torch.zeros_like(mine) for _ in range(self.ranks)]
        dist.all_gather(every, mine, group=self.group)
        return float(sum(float(tensor) for tensor in every))

    def gather(self, value: Any) -> list[Any]:
        """Each process's value, in the order of ranks, on every process."""
        if self.ranks == 1:
            return [value]
        every: list[Any] = [None] * self.ranks
        dist.all_gather_object(every, value, group=self.group)
        return every

    def wait(self) -> None:
        """Until every process is here."""
        if self.ranks > 1:
            dist.barrier(group=self.group)
