"""`python -m tests.systems [NAME…]`: what users train, on small real parts: each cut into three jobs or more and whole.

Prints a table, and writes build/systems.json; the exit code is 1 where a goal is missed, or where a run that was cut
came to other weights, another curve or other answers than the one that was not. `make systems` gets the parts first.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hpcft.disk import read_json
from hpcft.rundir import RunDir
from hpcft.textrows import read_text_rows
from tests.promise import hpcft, outcome

HERE, PARTS = Path(__file__).parent, Path("build/systems")
RUNS, OUT = PARTS / "runs", Path("build/systems.json")
LEAST_JOBS, SHORTEST = 3, 30
"""A run is cut into jobs of a third of what it takes, some of which goes into their starts; and their least seconds."""
LOOK, TEST = 10_000, 60_000
"""Characters of a play on which the loss is validated, and of another that is the test."""
Reports = dict[str, dict[str, Any]]
"""What held-out rows said `before` and `after` training, and at the end of a phase."""


@dataclass(frozen=True)
class Goal:
    """What a system has to come to."""

    words: str
    holds: Callable[[Reports], bool]


def above_majority(points: float) -> Goal:
    words = f"accuracy {points:g} points over the commonest answer"
    return Goal(words, lambda found: found["after"]["accuracy"] >= found["after"]["majority"] + points / 100)


def above_chance(classes: int) -> Goal:
    words = f"the whole interval over 1/{classes}"
    return Goal(words, lambda found: bool(found["after"]["interval"][0] > 1 / classes))


GOALS = {
    "news": Goal("accuracy 75%", lambda found: found["after"]["accuracy"] >= 0.75),
    "questions": above_chance(2),
    "moods": above_chance(3),
    "sentiment": above_majority(15),
    "plays": Goal("perplexity falls by a quarter", lambda found: _perplexity(found, "after", "before") < 0.75),
    "code": Goal("perplexity falls", lambda found: _perplexity(found, "after", "before") < 1),
}


def main(names: list[str]) -> int:
    """The exit code."""
    csv = PARTS / "plays-csv"
    if not csv.exists():
        hpcft("data", "csv", PARTS / "plays", "--out", csv, "--validation", "0.05")
        documents = read_text_rows(csv / "validation.csv")
        for name, length in (("few", LOOK), ("test", TEST)):
            (csv / f"{name}.jsonl").write_text(json.dumps({"text": next(documents)["text"][:length]}) + "\n")
    table = Table("system", "jobs", "before", "after", "goal", "holds", "cut = whole")
    rows = []
    for name in names or GOALS:
        row = try_out(name)
        rows.append(row)
        holds, same = ("[green]yes[/]" if row[key] else "[red]no[/]" for key in ("holds", "same"))
        table.add_row(name, str(row["jobs"]), row["before"], row["after"], GOALS[name].words, holds, same)
        print(json.dumps(row), flush=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    Console(width=140).print(table)
    return 0 if all(row["holds"] and row["same"] and row["jobs"] >= LEAST_JOBS for row in rows) else 1


def try_out(name: str) -> dict[str, Any]:
    """What a system came to, cut and whole."""
    for old in (RUNS / name, RUNS / f"{name}-whole"):
        shutil.rmtree(old, ignore_errors=True)
    recipe = HERE / f"{name}.yaml"
    whole = trained(recipe, f"{name}-whole", "--set", f"name={name}-whole")
    lasted = sum((job.ended or {}).get("wall_seconds", 0) for job in whole.jobs())
    minutes, seconds = divmod(max(round(lasted / LEAST_JOBS), SHORTEST), 60)
    cut = trained(recipe, name, "--set", f"resources.walltime={minutes}:{seconds:02}")
    found, other = reports(cut), reports(whole)
    same = outcome(cut) == outcome(whole) and answers(found) == answers(other)
    jobs = sum(bool(job.resumed) for job in cut.jobs())
    before, after = (told(found[when]) for when in ("before", "after"))
    return {"system": name, "jobs": jobs, "before": before, "after": after, "holds": GOALS[name].holds(found),
            "same": same, "phases": {key: told(value) for key, value in found.items()}}  # fmt: skip


def trained(recipe: Path, name: str, *more: str) -> RunDir:
    """The finished run."""
    done = hpcft("submit", recipe, "--cluster", "local", "--runs", RUNS, "--wait", *more, seconds=3000)
    if done.returncode:
        raise RuntimeError(f"{name}:\n{done.stdout}{done.stderr}")
    return RunDir((RUNS / name).absolute())


def reports(run: RunDir) -> Reports:
    """By when they were made."""
    return {path.stem: read_json(path) or {} for path in sorted(run.evaluation.glob("*.json"))}


def answers(found: Reports) -> dict[str, Any]:
    """The reports less the seconds that they took."""
    return {when: {key: value for key, value in report.items() if key != "seconds"} for when, report in found.items()}


def told(report: dict[str, Any]) -> str:
    """`61.3% (55.7 to 66.7%) of 300` or `perplexity 41.2 of 80`."""
    if "accuracy" not in report:
        return f"perplexity {report['perplexity']:.1f}"
    low, high = report["interval"]
    return f"{report['accuracy']:.1%} ({100 * low:.1f} to {100 * high:.1f}%) of {report['rows']}"


def _perplexity(found: Reports, one: str, other: str) -> float:
    return float(found[one]["perplexity"] / found[other]["perplexity"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
