"""The phases of a recipe: what is wrong with them, and what is wrong in each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hpcft.errors import Fault
from hpcft.recipe import ALIKE, OF_PHASES
from hpcft.recipefile import RecipeFile
from hpcft.rowfaults import quoted
from hpcft.template import read_template

RESERVED = re.compile(r"before|after|confusion|(train|validation|test)-.*")
"""Names of files in evaluation/ that a phase would write over."""


def phase_faults(file: RecipeFile) -> Iterator[Fault]:
    """Names that stand twice, and keys that all phases share."""
    if "phases" in file.doubtful:
        return
    phases, names = file.recipe.phases, [phase.name for phase in file.recipe.phases]
    for number, phase in enumerate(phases):
        where, key = file.where(f"phases.{number}.name"), f"phases.{phase.name}"
        if phase.name in names[:number]:
            yield Fault(where, f'two phases are called "{phase.name}".', "Give each a name of its own.")
        if RESERVED.fullmatch(phase.name):
            what = f'no phase can be called "{phase.name}": evaluation/ has other files of this name.'
            yield Fault(where, what, "Give it another name.")
        shared = [f"data.{word}" for word in ALIKE if word in phase.data.model_fields_set]
        shared += [f"train.{word}" for word in sorted(phase.train.model_fields_set - set(OF_PHASES))]
        for word in shared:
            section = word.partition(".")[0]
            what = f"{key}.{word}: all phases have the same."
            yield Fault(file.where(f"{key}.{word}"), what, f'Write it in the section "{section}", or remove it.')

        split, others = file.recipe.data.split, sorted(phase.data.model_fields_set & {"train", "revision", "config"})
        if "data" not in file.doubtful and split and split.test and others:
            what = (
                f"{key}.data.{others[0]}: data.split draws the test rows from the training rows, and these are others."
            )
            yield Fault(
                file.where(f"{key}.data.{others[0]}"), what, "Name a file in data.test in place of data.split.test."
            )
    yield from _drawn_faults(file)


def _drawn_faults(file: RecipeFile) -> Iterator[Fault]:
    """That phases read other columns of the rows that are drawn: by what a phase reads it is decided which rows say the
    same, and are held out together; so one phase would learn what another is tested on."""
    if "data" in file.doubtful or not file.recipe.data.split:
        return
    first: frozenset[str] | None = None
    for phase in file.each_phase():
        read = _read(phase)
        first = first or read
        if first and read and read != first:
            what = f"phases.{phase.phase} reads {quoted(sorted(read))}, and a phase before it {quoted(sorted(first))}: "
            what += "data.split draws by what is read, and would hold out other rows for each."
            fix = "Let all phases read the same columns, or name files in data.validation and data.test."
            yield Fault(file.where(f"phases.{phase.phase}"), what, fix)


def _read(phase: RecipeFile) -> frozenset[str] | None:
    """Columns of the source that a phase reads; None where its template cannot be read."""
    data, names = phase.recipe.data, phase.recipe.columns
    if data.template and not names:
        try:
            names = tuple(read_template(Path(data.template)).columns)
        except (OSError, UnicodeDecodeError):
            return None
    return frozenset(data.columns.get(name, name) for name in names) or None


def in_phases(file: RecipeFile, check: Callable[[RecipeFile], Iterator[Fault]]) -> Iterator[Fault]:
    """What a check finds in the recipe of each phase; what it finds in all of them once, else with the phase."""
    files = file.each_phase()
    found = [list(check(one)) for one in files]
    for one, faults in zip(files, found, strict=True):
        for fault in faults:
            if not all(fault in others for others in found):
                yield replace(fault, what=f"phase {one.phase}: {fault.what}")
            elif one is files[0]:
                yield fault
