"""What a benchmark says: one number of ours beside a peer's, and the goal it is held to."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    ours: float
    peer: float
    goal: str
    """In words, with the number: `under 0.25 s`."""
    holds: bool
    unit: str

    @property
    def ratio(self) -> float:
        """Ours to the peer's; below 1 we are ahead."""
        return self.ours / self.peer if self.peer else float("inf")

    def as_json(self) -> dict[str, object]:
        """The same as plain values."""
        return {**asdict(self), "ratio": self.ratio}


def seconds(command: Sequence[str | Path], environment: Mapping[str, str], after: Callable[[], object] = int) -> float:
    """Wall time of a command, which has to succeed; `after` tidies up and is not counted."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    after()
    return spent


def beside(ours: Callable[[], float], peer: Callable[[], float], times: int) -> tuple[float, float]:
    """Medians of both, measured in turns, so that whatever else the machine does slows both alike."""
    pairs = [(ours(), peer()) for _ in range(times)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)
