"""Runs side by side: what they set otherwise, what came of it, and which is the best by a measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcft.disk import read_json
from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.launch.debug import means_recipe
from hpcft.launch.status import RunStatus
from hpcft.launch.words import count
from hpcft.recipefile import check_members
from hpcft.rundir import RunDir, find_runs

BETTER = {
    "accuracy": max,
    "macro_f1": max,
    "validation_loss": min,
    "lowest_validation_loss": min,
    "train_loss": min,
    "gpu_hours": min,
}
"""What a run can be the best by, and which end of it is good; the first that is known of a run is the default."""
OF_A_TEST = ("accuracy", "macro_f1")
"""Measures that say nothing beside those of other rows."""
ASIDE = ("name", "data.workers", "matrix", "notify", "track", "resources", "train.save_every", "cluster", "env")
"""Keys that change nothing of what is learnt, or are another in every run."""


@dataclass(frozen=True)
class Result:
    """One run, as it is compared."""

    name: str
    state: str
    step: int
    total_steps: int | None
    settings: Mapping[str, Any]
    """What it has under the keys in which the runs differ."""
    train_loss: float | None
    """Mean over the last tenth of its steps so far."""
    validation_loss: float | None
    """The last one."""
    lowest_validation_loss: float | None
    lowest_at: int | None
    """Step of that."""
    accuracy: float | None
    """On the test rows, after training."""
    interval: tuple[float, float] | None
    """That 95 of 100 resamples of the test rows stay in."""
    macro_f1: float | None
    majority: float | None
    """What always giving the commonest answer is worth."""
    gpu_hours: float | None
    """None for a run without a GPU."""
    hours: float
    """Of all its jobs."""
    tested_on: str | None = None
    """The same for runs that were tested on the same rows."""


@dataclass(frozen=True)
class Losses:
    """What the curves of a run say, which are read elsewhere."""

    train: float | None
    validation: float | None
    lowest: float | None
    lowest_at: int | None


def named(root: Path, words: Sequence[str]) -> tuple[list[RunDir], list[str]]:
    """The runs that these words mean, and names of runs that a recipe means and that are not there.

    A word is a run's name, else a prefix of some, else a recipe's file: the newest run of each that it means. Raises
    UserError with all words that mean nothing.
    """
    runs = find_runs(root)
    found: dict[Path, RunDir] = {}
    faults, absent = [], []
    for word in words:
        exact = [run for run in runs if run.name == word]
        some = exact or [run for run in runs if run.name.startswith(word.rstrip("*"))]
        if not exact and means_recipe(word):
            some, lacking = _of_recipe(runs, Path(word))
            absent += lacking
            if not some:
                fix = f"`hpcft submit {word}` makes them." if len(lacking) > 1 else f"`hpcft submit {word}` makes it."
                faults.append(Fault(word, f"no run of it is in {root}.", fix))
        elif not some:
            names = ", ".join(run.name for run in runs[-10:]) or "none"
            faults.append(Fault(word, f"no run's name begins so in {root}.", f"There: {names}."))
        found |= {run.path: run for run in some}
    if faults:
        raise UserError(faults)
    return list(found.values()), absent


def _of_recipe(runs: Sequence[RunDir], path: Path) -> tuple[list[RunDir], list[str]]:
    """The newest run of each that a recipe's file means, and the names of those that have none."""
    members = check_members(path)
    if faults := list(dict.fromkeys(fault for member in members for fault in member.faults)):
        raise UserError(faults)
    wanted = [member.file.recipe.name for member in members if member.file]
    newest: dict[str, tuple[float, RunDir]] = {}
    for run in runs:
        record = run.submission or {}
        name, time = (record.get("recipe") or {}).get("name"), float(record.get("time") or 0.0)
        if name in wanted and time >= newest.get(name, (0.0, run))[0]:
            newest[name] = (time, run)
    return [newest[name][1] for name in wanted if name in newest], [name for name in wanted if name not in newest]


def results(runs: Sequence[RunDir], statuses: Sequence[RunStatus], losses: Sequence[Losses]) -> list[Result]:
    """One for each run; `losses` are those of its stitched curves."""
    flat = [_flat(run.recipe.model_dump(mode="json")) for run in runs]
    keys = [key for key in dict.fromkeys(key for values in flat for key in values) if not _is_aside(key)]
    keys = [key for key in keys if len({json.dumps(values.get(key)) for values in flat}) > 1]
    found = []
    for run, status, loss, values in zip(runs, statuses, losses, flat, strict=True):
        tested = read_json(run.evaluation / "after.json") or {}
        interval = tested.get("interval")
        found.append(
            Result(
                name=run.name,
                state=status.state,
                step=status.step,
                total_steps=status.total_steps,
                settings={key: values.get(key) for key in keys},
                train_loss=loss.train,
                validation_loss=loss.validation,
                lowest_validation_loss=loss.lowest,
                lowest_at=loss.lowest_at,
                accuracy=tested.get("accuracy"),
                interval=(interval[0], interval[1]) if interval else None,
                macro_f1=tested.get("macro_f1"),
                majority=tested.get("majority"),
                gpu_hours=status.gpu_hours_used if run.recipe.resources.gpus else None,
                hours=sum(job.wall_seconds or 0.0 for job in status.jobs) / 3600,
                tested_on=_tested_on(run, tested) if tested else None,
            )
        )
    return found


def _tested_on(run: RunDir, report: Mapping[str, Any]) -> str:
    """Hash of where the test rows came from, how they were drawn, and how many of each class they are.

    Not of the rows as the model saw them: runs of several models have those in several forms.
    """
    data = run.recipe.data
    source = ((read_json(run.path / "provenance.json") or {}).get("data") or {}).get("test" if data.test else "train")
    drawn = None if data.test or data.split is None else data.split.model_dump()
    classes = [(each["label"], each["rows"]) for each in report.get("per_class") or ()]
    facts = [(source or {}).get("sha256"), drawn, report.get("rows"), sorted(classes)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, those of a phase by its name."""
    found: dict[str, Any] = {}
    if "phases" in values:
        values = {**values, "phases": {phase["name"]: phase for phase in values["phases"]}}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def _is_aside(key: str) -> bool:
    return key.endswith(".template") or any(f"{key}.".startswith(f"{other}.") for other in ASIDE)


def best(found: Sequence[Result], by: str | None) -> tuple[str | None, list[Result]]:
    """The measure, and the runs from the best on; those without it come last. Raises UserError where none has it."""
    if by is not None and by not in BETTER:
        raise UserError(Fault("--by", f'"{by}" is no measure.', did_you_mean(by, list(BETTER))))
    known = [key for key in BETTER if any(getattr(one, key) is not None for one in found)]
    if by is not None and by not in known:
        raise UserError(Fault("--by", f"no run has {by} yet.", f"There: {', '.join(known) or 'none'}."))
    by = by or next(iter(known), None)
    if by is None:
        return None, list(found)
    sign = -1 if BETTER[by] is max else 1
    order = sorted((one for one in found if getattr(one, by) is not None), key=lambda one: sign * getattr(one, by))
    return by, [*order, *(one for one in found if getattr(one, by) is None)]


def winner(by: str | None, order: Sequence[Result]) -> Result | None:
    """The best run; None where no run has the measure, or where what it was taken on differs."""
    known = [one for one in order if by and getattr(one, by) is not None]
    if by in OF_A_TEST and len({one.tested_on for one in known}) > 1:
        return None
    return known[0] if known else None


def words_on_best(by: str, order: Sequence[Result]) -> str:
    """`best by accuracy: grid-5e-5, 72.5%; within its interval lies grid-1e-5 (71.0%)`."""
    if winner(by, order) is None:
        return f"no best by {by}: these runs were tested on different rows"
    first, *others = [one for one in order if getattr(one, by) is not None]
    text = f"best by {by}: {first.name}, {_measure(by, getattr(first, by))}"
    if by != "accuracy" or first.interval is None:
        return text
    low = first.interval[0]
    close = [one for one in others if one.accuracy is not None and one.accuracy >= low]
    if not close:
        return text
    names = ", ".join(f"{one.name} ({one.accuracy:.1%})" for one in close[:3])
    more = f" and {count(len(close) - 3, 'more run')}" if close[3:] else ""
    return f"{text}; within its interval {'lies' if len(close) == 1 else 'lie'} {names}{more}"


def _measure(by: str, value: float) -> str:
    return f"{value:.1%}" if by in ("accuracy", "macro_f1") else f"{value:.4f}" if "loss" in by else f"{value:.2f}"


def as_json(by: str | None, order: Sequence[Result], absent: Sequence[str]) -> str:
    """The comparison for programs."""
    first = winner(by, order)
    value = {"by": by, "best": first and first.name, "runs": [asdict(one) for one in order], "not_there": list(absent)}
    return json.dumps(value, indent=1)
