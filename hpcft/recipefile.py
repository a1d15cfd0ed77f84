"""A recipe's file: read, overridden, held against the schema, and its paths made absolute."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.matrix import Cell, cells
from hpcft.recipe import Recipe
from hpcft.schema import expand, explain, sections
from hpcft.sections import Data, Notify
from hpcft.yamlfile import Loader, explain_syntax, place, read_yaml

OF_RUN = "run:"
"""Begins the path of a model that another run has left; the submission resolves it."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_DATASET = re.compile(r"([\w-][\w.-]*/[\w.-]+)(:[\w.-]+)?")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with what is needed to point at the line of a fault."""

    path: Path
    recipe: Recipe
    lines: dict[str, int] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    doubtful: frozenset[str] = frozenset()
    """Top keys with a fault in them: what lies below is not what the user meant."""
    phase: str | None = None
    """The phase whose recipe this is, of a file with phases."""
    cell: Cell | None = None
    """Which run of the file's matrix it is."""

    def each_phase(self) -> list[RecipeFile]:
        """The same with the recipe of each phase; of one without phases, itself."""
        each = enumerate(self.recipe.each_phase())
        return [replace(self, recipe=one, phase=self.recipe.phase_name(number)) for number, one in each]

    def where(self, key: str) -> str:
        """`jobs/demo.yaml:7` for a dotted key, or `--set key` where it, or what holds it, was overridden.

        Of a phase's recipe, the place of its own key where it has one.
        """
        own = f"phases.{self.phase}.{key}"
        if self.phase and (own in self.lines or any(text.startswith(own) for text in self.overrides)):
            return replace(self, phase=None).where(own)
        for setting, written in (self.cell.places if self.cell else {}).items():
            if f"{key}.".startswith(f"{setting}.") or (key not in self.lines and setting.startswith(f"{key}.")):
                return written
        for text in self.overrides:
            given = text.split("=", 1)[0].strip()
            made = key not in self.lines and given.startswith(f"{key}.")  # the section is not in the file
            if made or f"{key}.".startswith(f"{given}."):
                return f"--set {given}"
        return place(self.path, self.lines, key)


@dataclass(frozen=True)
class Member:
    """One run that a recipe's file means: the only one, or one of its matrix."""

    file: RecipeFile | None
    """Less what is wrong in it; None where too little is left."""
    faults: tuple[Fault, ...]


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """The recipe in a YAML file, with `section.key=value` overrides. Raises UserError with every fault in it."""
    file, faults = check_recipe(path, overrides)
    if faults or file is None:
        raise UserError(faults)
    return file


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[RecipeFile | None, list[Fault]]:
    """The recipe less what is wrong in it, and its faults; None for the recipe where too little is left.

    Raises UserError if the file cannot be read, or not as YAML, or means several runs.
    """
    members = check_members(path, overrides)
    if len(members) > 1:
        labels = [member.file.cell.label for member in members if member.file and member.file.cell]
        names = ", ".join([*labels[:8], *(["..."] if labels[8:] else [])])
        where = members[0].file.where("matrix") if members[0].file else str(path)
        fix = f"Choose one with --set matrix=NAME: {names}."
        raise UserError(Fault(where, f"its matrix means {len(members)} runs, and this is for one.", fix))
    return members[0].file, list(members[0].faults)


def check_members(path: Path, overrides: Sequence[str] = ()) -> list[Member]:
    """Every run that a recipe's file means, each held against the schema.

    `--set matrix=NAME` chooses one, and `--set matrix.KEY=[...]` adds a key to the grid. Raises UserError if the file
    cannot be read, or not as YAML, and with all that is wrong with the matrix itself.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        beside = [other.name for other in sorted(path.parent.glob("*.yaml"))] if not path.exists() else []
        fix = f"There: {', '.join(beside)}." if beside else ""
        raise UserError(Fault(str(path), f"cannot be read: {reason}.", fix)) from None
    values, lines = read_yaml(path, text)
    for key, section in sections(Recipe).items():
        if section and key in values and values[key] is None:
            values[key] = {}  # all its lines are comments
    if values.get("phases", ()) is None:
        values["phases"] = []
    choices = [text.partition("=")[2].strip() for text in overrides if text.partition("=")[0].strip() == "matrix"]
    overrides = [text for text in overrides if text.partition("=")[0].strip() != "matrix"]
    faults = [fault for text in overrides for fault in apply_override(values, text)]
    lines = with_names(lines, values)
    doubtful = {text.partition("=")[0].partition(".")[0].strip() for text in overrides if faults}
    file = RecipeFile(path, Recipe.model_construct(), lines, tuple(overrides), frozenset(doubtful))
    if "matrix" not in values:
        if choices:
            faults.append(Fault("--set matrix", f"{path} has no matrix.", "Leave it out."))
        return [_check(values, file, faults)]
    matrix, name = values.pop("matrix"), str(values.get("name"))
    found, wrong = cells(matrix, name, file.where)
    wrong += _overridden(found, overrides)
    for choice in choices:
        chosen = [cell for cell in found if choice in (cell.label, f"{name}-{cell.label}")]
        if not chosen and not wrong:
            known = did_you_mean(choice, [cell.label for cell in found])
            wrong.append(Fault("--set matrix", f'none of its runs is called "{choice}".', known))
        found = chosen
    if wrong or not isinstance(values.get("name"), str):
        raise UserError([*faults, *_check(values, file, wrong).faults])
    return [_check(values, replace(file, cell=cell), faults) for cell in found]


def _overridden(found: Sequence[Cell], overrides: Sequence[str]) -> list[Fault]:
    """Overrides of what the matrix decides."""
    keys = dict.fromkeys(key for cell in found for key in cell.settings)
    given = [text.partition("=")[0].strip() for text in overrides]
    fix = "Write `--set matrix.{0}=[...]`, or choose one run with `--set matrix=NAME`."
    return [
        Fault(f"--set {text}", f"the matrix gives each run a {key} of its own.", fix.format(key))
        for text in given
        for key in keys
        if f"{key}.".startswith(f"{text}.") or f"{text}.".startswith(f"{key}.")
    ]


def _check(values: dict[str, Any], file: RecipeFile, faults: Sequence[Fault]) -> Member:
    """One run, of these values with its cell's settings, held against the schema; `faults` are known already."""
    faults, values = list(faults), dict(json.loads(json.dumps(values, default=str)))
    for key, value in file.cell.settings.items() if file.cell else ():
        faults += [Fault(file.where(key), *problem) for problem in put(values, key, value)]
    if file.cell:
        values["name"] = f"{values['name']}-{file.cell.label}"
    doubtful = set(file.doubtful)
    try:
        recipe = _validate(values)
    except ValidationError as error:
        faults += explain(error, file.where, Recipe, item_names(values))
        doubtful |= {str(detail["loc"][0]) for detail in error.errors()}
        try:
            recipe = _validate(_without(values, [detail["loc"][:2] for detail in error.errors()]))
        except ValidationError:
            return Member(None, tuple(faults))
    recipe = _resolve(recipe, file.path.absolute().parent)
    return Member(replace(file, recipe=recipe, doubtful=frozenset(doubtful)), tuple(faults))


def _validate(values: Mapping[str, Any]) -> Recipe:
    return Recipe.model_validate_json(json.dumps(values, default=str))


def _without(values: Mapping[str, Any], locations: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values less what stands at these places, each a key, or a section and a key; or the number of a phase, and
    then there are none.
    """
    kept = {}
    for key, value in values.items():
        if (key,) in locations or (isinstance(value, list) and any(place[0] == key for place in locations)):
            continue
        if isinstance(value, dict):
            value = {inner: item for inner, item in value.items() if (key, inner) not in locations}
        kept[key] = value
    return kept


def apply_override(values: dict[str, Any], text: str) -> list[Fault]:
    """Put one `section.key=value` into the values; the value is typed as YAML would type it."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        return [Fault(f"--set {text}", f"names no {'value' if key else 'key'}.", "Write section.key=value.")]
    try:
        parsed = yaml.load(value, Loader=Loader)
        json.dumps(parsed, default=str)
    except yaml.YAMLError as error:
        # What has been read and has a wrong content is quoted already, or has a tag.
        fix = "" if isinstance(error, yaml.constructor.ConstructorError) else "Quote it."
        return [Fault(f"--set {key}", f"{value!r} is no YAML value: {explain_syntax(value, error)[1]}.", fix)]
    except ValueError:
        return [Fault(f"--set {key}", f"{value!r} holds an alias of what it stands in.", "Remove that *alias.")]
    if key.startswith("matrix."):  # whose keys are dotted themselves
        grid = values.setdefault("matrix", {})
        if not isinstance(grid, dict):
            return [Fault(f"--set {key}", "the matrix is a list, to which no key can be added.", "Change the file.")]
        grid[key.removeprefix("matrix.")] = parsed
        return []
    return [Fault(f"--set {key}", *problem) for problem in put(values, key, parsed)]


def put(values: dict[str, Any], key: str, value: object) -> list[tuple[str, str]]:
    """Set a dotted key, that of a phase by its name; sections are made where they are not there. What is wrong with it,
    if anything, and what to do."""
    *around, last = key.split(".")
    if around[:1] == ["phases"]:
        numbers = {name: number for (_, number), name in item_names(values).items()}
        name = [*around, last][1]
        if name not in numbers:
            there = f"It has {', '.join(numbers)}." if numbers else "It has no phases."
            return [(f'"{name}" is no phase of the recipe.', there)]
        if not around[1:]:
            return [(f'"{name}" is a phase, and no key.', f"Write {key}.section.key=value.")]
        values, around = values["phases"][numbers[name]], around[2:]
    for section in around:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return [(f'"{section}" is no section of the recipe.', "Write section.key=value.")]
        values = inner
    values[last] = value
    return []


def item_names(values: Mapping[str, Any]) -> dict[tuple[int | str, ...], str]:
    """What the phases of a recipe are called: {("phases", 0): "full"}."""
    phases = values.get("phases")
    phases = phases if isinstance(phases, list) else []
    names = {number: phase.get("name") for number, phase in enumerate(phases) if isinstance(phase, dict)}
    return {("phases", number): name for number, name in names.items() if isinstance(name, str)}


def with_names(lines: Mapping[str, int], values: Mapping[str, Any]) -> dict[str, int]:
    """The lines of all dotted keys, those of a phase by its name too: `phases.full.train` for `phases.0.train`."""
    found = dict(lines)
    for (_, number), name in item_names(values).items():
        place = f"phases.{number}"
        for key, line in lines.items():
            if f"{key}.".startswith(f"{place}."):
                found.setdefault(f"phases.{name}{key[len(place) :]}", line)
    return found


def is_path(text: str) -> bool:
    """Whether a cluster or env is meant by its place and not by its name."""
    return "/" in text or text.endswith((".yaml", ".yml"))


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every path absolute: relative ones stand beside the recipe, wherever hpcft is called.

    And with one of batch_size and batch_tokens where the user gave no more.
    """

    def absolute(text: str | None) -> str | None:
        return None if text is None else str((folder / expand(text)).resolve())

    def found(data: Data) -> Data:
        rows = {key: text for key in ("train", "validation", "test") if (text := getattr(data, key))}
        files = {key: text if is_hub_dataset(text, folder) else absolute(text) for key, text in rows.items()}
        template = {"template": absolute(data.template)} if data.template else {}
        return data.model_copy(update={**files, **template})

    data = found(recipe.data)
    phases = tuple(phase.model_copy(update={"data": found(phase.data)}) for phase in recipe.phases)
    model = recipe.model
    if not is_hub_id(model.path, folder) and not model.path.startswith(OF_RUN):
        model = model.model_copy(update={"path": absolute(model.path)})
    named = {
        # Not resolved: an env that is reached through a link keeps the prefix that its scripts were made for.
        key: os.path.abspath(folder / expand(text))  # noqa: PTH100
        for key in ("cluster", "env")
        if (text := getattr(recipe, key)) and is_path(text)
    }
    notify = resolve_notify(recipe.notify, folder)
    train = recipe.train
    if train.batch_tokens and "batch_size" not in train.model_fields_set:  # its default is for who gives neither
        train = train.model_copy(update={"batch_size": None})
    made = {"data": data, "phases": phases, "model": model, "train": train, "notify": notify, **named}
    return recipe.model_copy(update=made)


def resolve_notify(notify: Notify, folder: Path) -> Notify:
    """The same with its program's path absolute; a mere name is looked for on PATH when the time comes."""
    words = shlex.split(notify.command or "")
    if not words or "/" not in words[0]:
        return notify
    program = str((folder / expand(words[0])).resolve())
    return notify.model_copy(update={"command": shlex.join([program, *words[1:]])})


def is_hub_id(text: str, folder: Path) -> bool:
    """Whether a model's path can only mean a hub id: shaped like one, and no such folder beside the recipe."""
    # os.path, since Path.exists raises for a name that is too long, and for a folder that may not be entered.
    return bool(HUB_ID.fullmatch(text)) and text[0] not in "./~" and not os.path.exists(folder / text)  # noqa: PTH110


def is_hub_dataset(text: str, folder: Path) -> bool:
    """Whether rows can only come from the hub: `owner/name`, or `owner/name:split`, and no file's ending or place."""
    match = HUB_DATASET.fullmatch(text)
    if not match or Path(match[1]).suffix in (".jsonl", ".json", ".csv", ".parquet"):
        return False
    return not os.path.exists(folder / match[1])  # noqa: PTH110 - as above
