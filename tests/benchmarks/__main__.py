"""`python -m tests.benchmarks`: all benchmarks, as a table and in build/bench.json; exit code 1 for a missed goal."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.launcher import help_row, launcher_rows
from tests.benchmarks.rows import Row

OUT = Path("build/bench.json")


def main() -> int:
    """The exit code."""
    rows: list[Row] = [help_row()]
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        rows += launcher_rows(Path(folder))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    table = Table("benchmark", "ours", "peer", "ratio", "goal", "holds")
    for row in rows:
        digits = 0 if row.unit == "calls" else 3
        ours, peer = (f"{value:.{digits}f} {row.unit}" for value in (row.ours, row.peer))
        holds = "[green]yes[/]" if row.holds else "[red]no[/]"
        table.add_row(row.name, ours, peer, f"{row.ratio:.2f}", row.goal, holds)
    Console(width=120).print(table)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
