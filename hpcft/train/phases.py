"""Phases: where each lies in the run, which one a checkpoint leads to, and the record of those that are over.

A phase ends with a checkpoint, and the next one is set up from that as a job is that resumes: so it makes no difference
whether a run is cut there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcft.data.features import Features
from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.train.control import Control


@dataclass(frozen=True)
class Span:
    """The steps of a phase in the run, whose steps are counted through; without phases, all of them."""

    number: int
    """From 0."""
    name: str | None
    begins: int
    """Steps done before its first."""
    ends: int
    """Steps done after its last."""
    last: bool
    """Whether none follows."""
    step_tokens: float = 0.0
    """Tokens of a step, on average."""
    other_measure: bool = False
    """Whether its losses are of other targets, or those in validation of other rows, than those of the phase before."""


def lay_out(recipe: Recipe, train: Sequence[Features], validation: Sequence[Features | None]) -> list[Span]:
    """The span of each phase, on these features. Raises UserError with every warm-up that leaves no step to fall."""
    spans: list[Span] = []
    faults, begins, each = [], 0, recipe.each_phase()
    for number, (one, rows) in enumerate(zip(each, train, strict=True)):
        tokens, longest = int(rows.lengths.sum()), int(rows.lengths.max())
        total = one.train.total_steps(len(rows), tokens, longest)
        if one.train.warmup_steps >= total:
            key = recipe.phase_key(number, "train.warmup_steps")
            what = f"{key} = {one.train.warmup_steps} leaves none of the {total} steps to fall."
            faults.append(Fault("recipe", what, "Write less, or more epochs."))
        step_tokens = tokens / one.train.epoch_steps(len(rows), tokens, longest)
        pairs = list(zip(each, validation, strict=True))[max(0, number - 1) : number + 1]
        measures = {(one.data.loss_on, found and found.fingerprint) for one, found in pairs}
        last, other = number == len(each) - 1, len(measures) > 1
        spans.append(Span(number, recipe.phase_name(number), begins, begins + total, last, step_tokens, other))
        begins += total
    if faults:
        raise UserError(faults)
    return spans


def phase_after(run: RunDir, spans: Sequence[Span], phase: int, step: int) -> int:
    """The phase that a checkpoint at this step of this phase leads to: the next one, where this one is over."""
    over = {record["name"]: record["over"] for record in run.phases}
    span = spans[phase]
    return phase if span.last or step != span.ends or not over.get(span.name) else phase + 1


def expected_phase(run: RunDir, spans: Sequence[Span], control: Control) -> int:
    """The phase that the newest checkpoint leads to, by its own word: whether it is sound, loading tells."""
    number = 0
    if control.rank == 0 and (steps := run.saved_steps()):
        number = phase_after(run, spans, stored_phase(run.checkpoints / f"step-{steps[-1]:08d}") or 0, steps[-1])
    return control.share(number)


def stored_phase(folder: Path) -> int | None:
    """The phase in whose course a checkpoint was saved, by its own word; None where it cannot be read."""
    try:
        return int(json.loads((folder / "state.json").read_text())["position"].get("phase", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def record_phases(run: RunDir, spans: Sequence[Span], over: str | None = None) -> None:
    """Write down where the phases lie, for whoever shows the run, and that one of them is over."""
    if spans[0].name is None:
        return
    known = {record["name"] for record in run.phases if record["over"]} | {over}
    records = [
        {
            "name": span.name,
            "begins": span.begins,
            "ends": span.ends,
            "step_tokens": span.step_tokens,
            "other_measure": span.other_measure,
            "over": span.name in known,
        }
        for span in spans
    ]
    if read_json(run.path / "phases.json") != {"phases": records}:
        write_json(run.path / "phases.json", {"phases": records})
