"""`python -m tests.benchmarks`: all benchmarks, as a table and in build/bench.json; exit code 1 for a missed goal.

With names, only those: `python -m tests.benchmarks tokens stall`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.benchmarks.curves import curve_rows
from tests.benchmarks.launcher import help_row, launcher_rows
from tests.benchmarks.resume import resume_rows
from tests.benchmarks.rows import Row, report
from tests.benchmarks.stall import stall_rows
from tests.benchmarks.tokens import token_rows

OUT = Path("build/bench.json")
PARTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "help": lambda folder: [help_row()],
    "launcher": launcher_rows,
    "stall": stall_rows,
    "resume": resume_rows,
    "tokens": token_rows,
    "curves": curve_rows,
}


def main(names: Sequence[str]) -> int:
    """The exit code."""
    rows: list[Row] = []
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            rows += PARTS[name](Path(folder))
    return report(rows, OUT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
