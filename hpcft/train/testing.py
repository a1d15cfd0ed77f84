"""A model on held-out rows: shared among the processes, gone on with after a cut, and never seen by the training."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from hpcft.curves.confusion import draw_confusions
from hpcft.data.source import chosen_rows, place_of, selection_of
from hpcft.disk import read_json, write_json, write_whole
from hpcft.evaluation.metrics import gain
from hpcft.evaluation.records import Part, Record, forget, known_records, read_answers, write_table
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.template import read_template
from hpcft.train.choices import ChoiceTest
from hpcft.train.classtest import ClassTest
from hpcft.train.control import Control
from hpcft.train.evaluate import release
from hpcft.train.model import LossModel, padding_token
from hpcft.train.splits import features_of, report_rows
from hpcft.train.surprise import LossTest
from hpcft.train.written import WrittenTest

UNTUNED = "before"
"""The name of the test of the model that the run begins with."""


class Test(Protocol):
    """Held-out rows, and how a model is asked about them."""

    @property
    def sizes(self) -> Sequence[int]:
        """Of each row; rows of like size are answered together."""

    def check(self) -> None:
        """Raise UserError with the rows that cannot be used."""

    def identity(self) -> list[Any]:
        """All that the answers depend on, the model apart, as JSON has it."""

    def answer(self, model: Any, rows: Sequence[int], number: int) -> list[Record]:
        """A record for each of these rows, which are batch `number` of all: {"row", ...}, and where there are labels
        "truth", "answer" (None for none) and "probabilities" (by label)."""

    def report(self, records: Sequence[Record]) -> dict[str, Any]:
        """The measures, of the records of all rows in order."""


def make_test(
    run: RunDir, recipe: Recipe, tokenizer: Any, control: Control, split: str = "test", below: str = ""
) -> Test | None:
    """The test that a recipe asks for, on the rows of a split; None if it asks for none. Raises UserError, Stop.

    `below` is the folder of a phase among the run's features, and the recipe that phase's.
    """
    data, evaluate = recipe.data, recipe.evaluate
    if not data.has(split):
        return None
    if recipe.has_classes:
        features = features_of(split, run, recipe, tokenizer, control, below)
        return ClassTest(features, data.labels or (), padding_token(tokenizer))
    together = recipe.train.sharding != "none" and control.ranks > 1
    if evaluate.choices is None or data.template is None:
        features = features_of(split, run, recipe, tokenizer, control, below)
        return LossTest(features, padding_token(tokenizer), evaluate.batch_size if together else 0)
    selection = selection_of(recipe, split, run.splits, tokenizer)
    rows, place = list(chosen_rows(recipe, split, selection)), place_of(recipe, split)
    name = (Path(below) / split).as_posix()
    if selection is not None and control.rank == 0 and name not in run.rows:
        report_rows(run, name, place, selection)
    template = read_template(Path(data.template))
    parts = (template, tokenizer, rows, evaluate.choices, data.max_length, place, selection)
    if evaluate.generate is None:
        return ChoiceTest(*parts)
    return WrittenTest(*parts, evaluate.generate, together)


def examine(
    test: Test,
    model: LossModel,
    out: Path,
    batch: int,
    control: Control,
    amp: Callable[[], Any],
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of a model on these rows, also in `out`, with a table of all answers and a picture beside it.

    What is there already of the same test and model is taken as it is. `facts` are what tells the model from others,
    and go into the report. Raises Stop on every process when the supervisor asks for it; what was answered so far lies
    beside `out` then.
    """
    of = _hash([*test.identity(), batch, facts])
    done, known = control.gather(_found(out, of) if control.rank == 0 else None)[0]
    if done:
        return dict(done)
    part, started = Part(out, control.rank, of), time.monotonic()
    mine: dict[int, Record] = dict(known)
    model.eval()
    try:
        for number, rows, spare in _turns(test.sizes, mine, batch, control):
            with torch.no_grad(), amp():
                found = test.answer(model, rows, number)
            if not spare:
                part.add(found)
                mine |= {record["row"]: record for record in found}
    finally:
        release(model)
        model.train()
    everyone = {row: record for theirs in control.gather(mine) for row, record in theirs.items()}
    records = [everyone[row] for row in sorted(everyone)]
    report = {**(facts or {}), **test.report(records), "seconds": time.monotonic() - started, "of": of}
    if control.rank == 0:
        _write(out, records, report)
    control.wait()
    return report


def _found(out: Path, of: str) -> tuple[dict[str, Any] | None, dict[int, Record]]:
    """The report, if there is one of the same, else what is known of the rows already."""
    out.parent.mkdir(exist_ok=True, mode=0o700)
    if (done := read_json(out)) and done.get("of") == of:
        return done, {}
    return None, known_records(out, of)


def _turns(
    sizes: Sequence[int], known: dict[int, Record], batch: int, control: Control
) -> Iterator[tuple[int, list[int], bool]]:
    """This process's batches that are not known: number, rows, and whether it only keeps the others company.

    Which rows meet depends on nothing that a cut, or another number of processes, changes. All processes have as many
    turns, since of a sharded model a pass needs every one. Raises Stop.
    """
    rows = sorted(range(len(sizes)), key=lambda row: (sizes[row], row))
    groups = [(number, rows[first : first + batch]) for number, first in enumerate(range(0, len(rows), batch))]
    todo = [(number, group) for number, group in groups if not all(row in known for row in group)]
    for first in range(0, len(todo), control.ranks):
        control.poll()
        place = first + control.rank
        number, group = todo[min(place, len(todo) - 1)]
        yield number, group, place >= len(todo)


def _write(out: Path, records: Sequence[Record], report: dict[str, Any]) -> None:
    """Table and picture, then the report, which says that all is there; then the parts go."""
    table = out.with_suffix(".parquet")
    before = out.with_name(f"{UNTUNED}.parquet")
    write_table(table, records)
    if "confusion" in report:
        if before != table and (theirs := read_answers(before)) and theirs[0] == [each["truth"] for each in records]:
            report["over_untuned"] = gain(theirs[0], [each["answer"] for each in records], theirs[1])
        draw_confusions({out.stem: report}, out.with_suffix(".png"))
    write_json(out, report)
    forget(out)


def draw_stages(folder: Path) -> None:
    """Put the matrices of all tests in the course of a run beside each other, in confusion.png."""
    found = [(path.stem, read_json(path)) for path in folder.glob("*.json")]
    stages = sorted((report["step"], name, report) for name, report in found if report and report.get("stage"))
    shown = {name: report for _, name, report in sorted(stages, key=_place) if "confusion" in report}
    if len(shown) > 1:
        draw_confusions({"untuned" if name == UNTUNED else name: report for name, report in shown.items()},
                        folder / "confusion.png")  # fmt: skip


def again(out: Path, name: str) -> None:
    """Put a test's files there under a second name too."""
    for path in (out.with_suffix(".parquet"), out.with_suffix(".png")):
        if path.exists():
            write_whole(path.with_stem(name), path.read_bytes())
    write_json(out.with_stem(name), {**(read_json(out) or {}), "stage": False})


def _place(stage: tuple[int, str, dict[str, Any]]) -> tuple[int, bool]:
    step, name, _ = stage
    return step, name == "after"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
