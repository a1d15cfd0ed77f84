"""YAML files held against a schema: values typed without surprises, and each fault with its line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from hpcft.errors import Fault, did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
PHASE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}", re.ASCII)
MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?")
MAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@[\w.-]+")
WEBHOOK = re.compile(r"https?://[^\s/]\S*")
WHOLE_NODES = "whole-nodes"
"""The gpu_request of a site whose jobs have whole nodes, and which knows no option for GPUs."""
GPU_REQUEST = re.compile(
    rf"(gres|gpus|gpus-per-node|gpus-per-task)=[\w:.,-]*\{{gpus\}}[\w:.,-]*|{WHOLE_NODES}", re.ASCII
)
SLURM_NAME = re.compile(r"[A-Za-z0-9][\w.,@+-]*", re.ASCII)
CONSTRAINT = re.compile(r"[A-Za-z0-9\[(][\w.,&|*()\[\]:@+!-]*", re.ASCII)
NODES = re.compile(r"[A-Za-z0-9][\w.,\[\]-]*", re.ASCII)
OPTION = re.compile(r"[a-z][a-z0-9-]*")
SHOWN = 60
"""Characters of a wrong value in a message."""


def walltime_seconds(text: str) -> int:
    """Seconds in `H:MM:SS`, `MM:SS` or `D-H:MM:SS`: `"2:00:00"` is 7200. Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d\d)", text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(f'"{text}" is no walltime')
    return total


def memory_bytes(text: str, bare: str = "M") -> int | None:
    """Bytes of an amount as Slurm writes it, `60G`, `1.5G`, `4Gn`, in powers of 1024; None for what is no amount.

    Without a letter it is in `bare`: sbatch reads M, sacct prints bytes, `""`.

    >>> memory_bytes("60G")
    64424509440
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)n?", text)
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or bare or " ")) if match else None


def clock(seconds: int) -> str:
    """A walltime as a file has it: 7200 is `2:00:00`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _walltime(text: str) -> str:
    try:
        walltime_seconds(text)
    except ValueError:
        raise PydanticCustomError("walltime", "no walltime") from None
    return text


def _shaped(pattern: re.Pattern[str], kind: str) -> Callable[[str], str]:
    """A check that a text has this shape; `kind` is its name in COMPLAINTS."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise PydanticCustomError("shape", "no {kind}", {"kind": kind})
        return text

    return check


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or "\0" in text:
        raise PydanticCustomError("command", "no command")
    return text


def _option_value(text: str) -> str:
    # A line break would end the #SBATCH line, and bash run what follows; sbatch drops backslashes, even quoted.
    if not text.isprintable() or "\\" in text:
        raise PydanticCustomError("option_value", "no value")
    return text


Count = Annotated[int, Field(ge=1)]
Walltime = Annotated[str, AfterValidator(_walltime)]
Memory = Annotated[str, AfterValidator(_shaped(MEMORY, "memory"))]
GpuRequest = Annotated[str, AfterValidator(_shaped(GPU_REQUEST, "gpu_request"))]
Mail = Annotated[str, AfterValidator(_shaped(MAIL, "mail"))]
Webhook = Annotated[str, AfterValidator(_shaped(WEBHOOK, "webhook"))]
Command = Annotated[str, AfterValidator(_command)]
Name = Annotated[str, AfterValidator(_shaped(NAME, "name"))]
PhaseName = Annotated[str, AfterValidator(_shaped(PHASE_NAME, "phase_name"))]
SlurmName = Annotated[str, AfterValidator(_shaped(SLURM_NAME, "slurm_name"))]
Constraint = Annotated[str, AfterValidator(_shaped(CONSTRAINT, "constraint"))]
Nodes = Annotated[str, AfterValidator(_shaped(NODES, "nodes"))]
Option = Annotated[str, AfterValidator(_shaped(OPTION, "option"))]
OptionValue = Annotated[str, AfterValidator(_option_value)]

COMPLAINTS = {
    "string_type": ("is no text.", "Put it in quotes."),
    "int_type": ("is no whole number.", ""),
    "int_from_float": ("is no whole number.", ""),
    "float_type": ("is no number.", ""),
    "bool_type": ("is neither true nor false.", ""),
    "finite_number": ("is no finite number.", ""),
    "model_type": ("is no section.", "Write `key: value` lines below it, indented."),
    "dict_type": ("is no section.", "Write `key: value` lines below it, indented."),
    "tuple_type": ("is no list.", "Write [first, second]."),
    "greater_than": ("is too small.", "It must be greater than {gt:g}."),
    "greater_than_equal": ("is too small.", "It must be {ge:g} at least."),
    "less_than": ("is too large.", "It must be less than {lt:g}."),
    "walltime": ("is no walltime.", 'Write hours:minutes:seconds, as "2:00:00".'),
    "memory": ("is no amount of memory.", 'Write it as Slurm does, "60G".'),
    "mail": ("is no mail address.", 'Write one, as "name@site.org".'),
    "webhook": ("is no web address.", 'Write it whole, "https://...".'),
    "command": ("is no command.", "Write a program and its arguments; close every quote."),
    "gpu_request": ("is no sbatch option with {{gpus}} in it.", "Write it as `gres=gpu:V100:{{gpus}}`."),
    "slurm_name": ("is no name of Slurm's.", "It has letters, digits and _ . , @ + - only, a letter or digit first."),
    "constraint": ("is no constraint of Slurm's.", "Write features, joined by & or |, as `v100&nvme`."),
    "nodes": ("names no nodes.", "Write them as Slurm does, `gpu[001-004]`."),
    "option": ("is no option of sbatch's.", "Write its long name without dashes before it, as `mail-type`."),
    "option_value": ("cannot be passed on.", "Remove its line breaks and backslashes."),
    "phase_name": (
        "is no name of a phase.",
        "Write letters, digits, dashes and underscores, 41 at most, a letter first.",
    ),
    "name": (
        "is no name.",
        "Write letters, digits, dots, dashes and underscores, 61 at most, a letter or digit first.",
    ),
}
"""What is wrong with a value, and what to do, by pydantic's or our name of the error."""


class Section(BaseModel):
    """A part of a recipe: frozen, typed strictly, and deaf to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def expand(text: str) -> Path:
    """The path with `~` filled in; one of a user that there is not stays as it is, and is then found missing."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def explain(
    error: ValidationError,
    where: Callable[[str], str],
    schema: type[BaseModel],
    names: Mapping[tuple[int | str, ...], str] = MappingProxyType({}),
) -> list[Fault]:
    """pydantic's complaints as faults; `where` gives the place of a dotted key. An unknown key gets the nearest.

    `names` are what items of lists are called, {("phases", 0): "full"}: they stand in keys in place of the number.
    """
    faults: dict[str, Fault] = {}
    for detail in error.errors():
        location, branch = _split(detail["loc"], schema)
        called = [names.get(location[: place + 1], part) for place, part in enumerate(location)]
        fault = _explain({**detail, "loc": location, "called": called}, where, schema)
        if branch:  # of several kinds of value that would do, each complains
            key = ".".join(map(str, called))
            fault = Fault(where(key), f"{_given(key, detail['input'])} is not known.", _menu(location, schema))
        faults.setdefault(f"{location} {fault.what}", fault)
    return list(faults.values())


def _split(location: Sequence[int | str], schema: type[BaseModel]) -> tuple[tuple[int | str, ...], bool]:
    """A place less what pydantic adds for the kinds of a union, and whether it did."""
    inner: type[BaseModel] | None = schema
    for index, part in enumerate(location):
        if inner is not None and isinstance(part, int):
            continue  # of a list of sections
        if inner is None or part not in inner.model_fields:
            return tuple(location), False
        kind = inner.model_fields[part].annotation if isinstance(part, str) else None
        inner = section_of(kind) or item_of(kind)
        if inner is None and len(_kinds(kind)) > 1:
            return tuple(location[: index + 1]), len(location) > index + 1
    return tuple(location), False


def _kinds(kind: object) -> list[object]:
    """What a union is made of, `None` apart; a single kind stands alone."""
    return [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) in (Union, UnionType) else []


def _menu(location: Sequence[int | str], schema: type[BaseModel]) -> str:
    """What may stand here, of a key that takes several kinds of value."""
    *around, last = (part for part in location if isinstance(part, str))
    for part in around:
        inner = schema.model_fields[part].annotation
        schema = section_of(inner) or item_of(inner) or schema
    words = []
    for kind in _kinds(schema.model_fields[last].annotation):
        literal = get_origin(kind) is Literal
        whole = ["a text"] if kind is str else ["a whole number from 1 on"]
        words += [f'"{word}"' for word in get_args(kind)] if literal else whole
    return f"Write {' or '.join(words)}."


def section_of(kind: object) -> type[BaseModel] | None:
    """The schema of a section, which a recipe may be allowed to leave out; None for a plain value."""
    for part in _kinds(kind) or [kind]:
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def item_of(kind: object) -> type[BaseModel] | None:
    """The schema of the sections in a list; None for what is no list of sections."""
    return section_of(get_args(kind)[0]) if get_origin(kind) is tuple else None


def _given(key: str, value: object) -> str:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return f"{key} = {shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + '…'}"


def _explain(detail: Mapping[str, Any], where: Callable[[str], str], schema: type[BaseModel]) -> Fault:
    # pydantic adds "[key]" where it is the key of a mapping that is wrong, and not its value.
    location, context = [str(part) for part in detail["called"] if part != "[key]"], detail.get("ctx", {})
    key, kind = ".".join(location), str(context.get("kind", detail["type"]))
    if kind == "extra_forbidden":
        return Fault(where(key), f'unknown key "{key}".', _nearest(detail["loc"], schema))
    if kind == "missing":
        section = f' to the section "{".".join(location[:-1])}"' if location[1:] else ""
        return Fault(where(key), f'"{key}" is missing.', f"Add `{location[-1]}: ...`{section}.")
    given = _given(key, detail["input"])
    if kind == "literal_error":
        menu = re.findall(r"'([^']*)'", str(context["expected"]))
        return Fault(where(key), f"{given} is not known.", did_you_mean(str(detail["input"]), menu))
    what, fix = COMPLAINTS.get(kind, ("is refused by the schema.", ""))
    return Fault(where(key), f"{given} {what.format(**context)}", fix.format(**context))


def _nearest(location: Sequence[int | str], schema: type[BaseModel]) -> str:
    """Where an unknown key belongs, or what it was meant to be."""
    *around, word = (part for part in location if isinstance(part, str) and part != "[key]")
    homes = [name for name, section in sections(schema).items() if section and word in section.model_fields]
    if len(homes) == 1:
        return f'It belongs to the section "{homes[0]}".'
    for part in around:
        kind = schema.model_fields[part].annotation if part in schema.model_fields else None
        section = section_of(kind) or item_of(kind)
        if section is None:
            return ""
        schema = section
    return did_you_mean(word, list(schema.model_fields))


def sections(schema: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Every key of a schema, with its own schema where it is a section."""
    return {name: section_of(field_info.annotation) for name, field_info in schema.model_fields.items()}
