"""The matrix: the settings in which the runs of one recipe differ, and a name for each that tells it apart."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from hpcft.errors import Fault
from hpcft.schema import NAME

MOST = 200
"""Runs of one matrix; more are a slip of the hand sooner than a wish."""
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
EXAMPLE = "Write `train.seed: [0, 1]` below it, or a list of `{train.seed: 0}`."
OWN = ("name", "matrix")
"""Keys of a recipe that no setting may be."""
Where = Callable[[str], str]
Axis = list["Cell"]


@dataclass(frozen=True)
class Cell:
    """One run of a matrix."""

    label: str
    """What stands behind the recipe's name in its own."""
    settings: Mapping[str, Any]
    """Values by dotted key, in place of the recipe's."""
    places: Mapping[str, str]
    """Where each of them was written: `jobs/grid.yaml:31`."""


def cells(matrix: object, name: str, where: Where) -> tuple[list[Cell], list[Fault]]:
    """The runs of a matrix, and all that is wrong with it; `name` is the recipe's, `where` gives a key's line.

    A mapping is a grid, each run of it one choice of each key:

    >>> [cell.label for cell in cells({"train.seed": [0, 1], "size": {"small": {}, "large": {}}}, "demo", str)[0]]
    ['seed-0-small', 'seed-0-large', 'seed-1-small', 'seed-1-large']
    """
    faults: list[Fault] = []
    if isinstance(matrix, list):
        found = list(_listed(matrix, where, faults))
    elif isinstance(matrix, dict):
        axes = [list(_axis(key, value, where, faults)) for key, value in matrix.items()]
        if (runs := math.prod(map(len, axes))) > MOST:
            return [], [*faults, Fault(where("matrix"), f"it means {runs} runs, and {MOST} are the most.", "Split it.")]
        found = [_joined(choice) for choice in product(*axes)] if axes else []
        faults += _twice_set(axes, where)
    else:
        return [], [Fault(where("matrix"), "matrix is neither a grid nor a list.", EXAMPLE)]
    if not matrix:
        faults.append(Fault(where("matrix"), "matrix is empty.", EXAMPLE))
    return found, [*faults, *_name_faults(found, name, where)]


def _listed(matrix: list[Any], where: Where, faults: list[Fault]) -> Iterator[Cell]:
    for index, entry in enumerate(matrix):
        key = f"matrix.{index}"
        if not isinstance(entry, dict):
            faults.append(Fault(where(key), f"{key} is no setting.", "Write `- {train.seed: 0}`."))
            continue
        settings = {name: value for name, value in entry.items() if name != "name"}
        label = entry.get("name") or "-".join(_word(name, value) or "" for name, value in settings.items())
        if "name" not in entry and not (settings and all(_word(*setting) for setting in settings.items())):
            what = f"{key} has no name, and nothing that would tell its run apart."
            faults.append(Fault(where(key), what, "Add `name: ...` to it."))
            continue
        faults += _setting_faults(settings, key, where)
        yield Cell(str(label), settings, {name: where(f"{key}.{name}") for name in settings})


def _axis(key: str, value: object, where: Where, faults: list[Fault]) -> Iterator[Cell]:
    """The choices of one key of a grid: values of that key, or names with some settings each."""
    place = f"matrix.{key}"
    if not isinstance(value, (list, dict)):
        fix = f"Write `{key}: [first, second]`."
        faults.append(Fault(where(place), f"{place} = {json.dumps(value, default=str)} is no list.", fix))
    elif not value:
        faults.append(Fault(where(place), f"{place} is empty.", "Remove it."))
    elif isinstance(value, dict):
        for name, settings in value.items():
            if settings is not None and not isinstance(settings, dict):
                given = json.dumps(settings, default=str)
                what = f"{place}.{name} = {given} is no section."
                fix = f"{key}.{name}: {given}" if isinstance(settings, list) else f"{name}: {{train.seed: 0}}"
                faults.append(Fault(where(f"{place}.{name}"), what, f"Write `{fix}`."))
                continue
            settings = settings or {}
            faults += _setting_faults(settings, f"{place}.{name}", where)
            yield Cell(str(name), settings, {inner: where(f"{place}.{name}.{inner}") for inner in settings})
    else:
        faults += _setting_faults({key: None}, "matrix", where)
        for index, one in enumerate(value):
            word = _word(key, one)
            if word is None:
                fix = f"Name the choices: `some: {{first: {{{key}: ...}}}}`."
                faults.append(Fault(where(f"{place}.{index}"), f"{place}.{index} makes no name.", fix))
            else:
                yield Cell(word, {key: one}, {key: where(f"{place}.{index}")})


def _word(key: str, value: object) -> str | None:
    """What a value is called in a run's name, a text by itself, a number behind its key; None for lists and sections.

    >>> _word("model.path", "google-bert/bert-base-cased"), _word("train.learning_rate", 5e-05)
    ('bert-base-cased', 'learning_rate-5e-5')
    """
    if isinstance(value, str):
        return NOT_IN_NAMES.sub("-", value.rstrip("/").rpartition("/")[2]).strip("-.") or None
    if isinstance(value, (dict, list)):
        return None
    shown = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    if isinstance(value, float) and 0 < abs(value) <= 1e-2:
        digits, _, power = f"{value:.6e}".partition("e")
        shown = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{key.rpartition('.')[2]}-{shown}"


def _joined(choice: tuple[Cell, ...]) -> Cell:
    settings = {key: value for cell in choice for key, value in cell.settings.items()}
    places = {key: place for cell in choice for key, place in cell.places.items()}
    return Cell("-".join(cell.label for cell in choice), settings, places)


def _setting_faults(settings: Mapping[str, Any], place: str, where: Where) -> Iterator[Fault]:
    for key in settings:
        if str(key).partition(".")[0] in OWN:
            fix = "Runs are named by their settings." if key == "name" else "Remove it."
            yield Fault(where(f"{place}.{key}"), f'"{key}" cannot differ between the runs of a matrix.', fix)


def _twice_set(axes: list[Axis], where: Where) -> Iterator[Fault]:
    """Settings that two keys of a grid would both decide."""
    keys = [{key for cell in axis for key in cell.settings} for axis in axes]
    for index, one in enumerate(keys):
        for other in keys[index + 1 :]:
            for key in sorted(one):
                if any(f"{key}.".startswith(f"{also}.") or f"{also}.".startswith(f"{key}.") for also in other):
                    yield Fault(where("matrix"), f"two of its keys set {key}.", "Let one of them do it.")


def _name_faults(found: list[Cell], name: str, where: Where) -> Iterator[Fault]:
    """Names that no run can have, or two would."""
    seen: dict[str, Cell] = {}
    fix = "Name the runs: write the matrix as a list, with `name: ...` in each."
    for cell in found:
        whole = f"{name}-{cell.label}"
        if not NAME.fullmatch(whole):
            what = f'"{whole}" is no name for a run: it has {len(whole)} characters, and 61 are the most.'
            if len(whole) <= 61:
                what = f'"{whole}" is no name for a run.'
            yield Fault(next(iter(cell.places.values()), where("matrix")), what, fix)
        other = seen.setdefault(whole, cell)
        if other is not cell:
            place = next(iter(cell.places.values()), where("matrix"))
            same = other.settings == cell.settings
            what = f'"{whole}" stands there twice.' if same else f'two runs would be called "{whole}".'
            yield Fault(place, what, "Remove one." if same else fix)
