"""What a benchmark says: one number of ours beside a peer's, and the goal it is held to."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


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
        """Ours to the peer's: of seconds, below 1 we are ahead; of what is done in a second, above 1."""
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


def report(rows: Sequence[Row], out: Path) -> int:
    """0 if every goal holds, else 1; the rows are a table on stdout and JSON in the file then."""
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    table = Table("benchmark", "ours", "peer", "ratio", "goal", "holds")
    for row in rows:
        digits = {"calls": 0, "jobs": 0, "steps": 0, "tokens/s": 1, "MB/s": 0, "MB": 0, "/s": 0}.get(row.unit, 3)
        ours, peer = (f"{value:.{digits}f} {row.unit}".strip() for value in (row.ours, row.peer))
        holds = "[green]yes[/]" if row.holds else "[red]no[/]"
        table.add_row(row.name, ours, peer, f"{row.ratio:.2f}", row.goal, holds)
    Console(width=120).print(table)
    return 0 if all(row.holds for row in rows) else 1
