"""The recipe: what to train, on what, with what resources; a YAML file checked whole before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hpcft.errors import Fault, UserError, did_you_mean

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def walltime_seconds(text: str) -> int:
    """Seconds in `H:MM:SS`, `MM:SS` or `D-H:MM:SS`: `"2:00:00"` is 7200. Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d\d)", text)
    if match is None:
        raise ValueError(f'"{text}" is no walltime; write hours:minutes:seconds, for example "2:00:00"')
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(f'"{text}" is no time at all')
    return total


def _walltime(text: str) -> str:
    walltime_seconds(text)
    return text


Count = Annotated[int, Field(ge=1)]
Walltime = Annotated[str, AfterValidator(_walltime)]


class Section(BaseModel):
    """A part of a recipe: frozen, typed strictly, and deaf to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Model(Section):
    """Where the pretrained model comes from."""

    path: str
    """A folder, relative to the recipe's own, or a hub id such as `openai-community/gpt2-xl`."""
    revision: str | None = None
    """Commit or tag of a hub id, so that every job of the chain loads the same files."""


class Data(Section):
    """Rows and how they become features. Files are .jsonl, .csv or .parquet, relative to the recipe's folder."""

    train: str
    validation: str | None = None
    """Rows for the validation loss; none is computed without them."""
    test: str | None = None
    """Held-out rows for `evaluate.choices`, looked at before and after training."""
    template: str | None = None
    """Markdown file with `{{column}}` placeholders (task instruct). What its last placeholder brings is the
    completion; all before it is the prompt."""
    text: str = "text"
    """Column that holds a document (task corpus)."""
    max_length: Count = 512
    """Tokens of a row at most; what is longer is cut at the end, and a block has this length."""
    loss_on: Literal["completion", "full"] = "completion"
    """Which tokens count (task instruct); the end-of-text token always does."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that stack batches, beside each training process."""


class Train(Section):
    """How to learn. A step is one update of the optimizer."""

    steps: Count | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows, in place of `steps`."""
    batch_size: Count = 8
    """Rows of one step, over all processes and micro-batches: the same whatever the number of GPUs."""
    micro_batch_size: Count = 1
    """Rows of one forward pass on one process; accumulation makes up the rest of the batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises to its peak; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """For matrices; biases and normalisation weights are left alone."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the whole gradient."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """fp16 and bf16 are automatic mixed precision over fp32 weights."""
    seed: Annotated[int, Field(ge=0)] = 0
    log_every: Count = 1
    """Steps between two points of the training curve; a point is the token mean since the last one."""
    save_every: Count = 500
    """Steps between two checkpoints, beside the one at the end of each job."""
    keep_checkpoints: Count = 2


class Evaluate(Section):
    """What is measured beside the training loss."""

    every: Count | None = None
    """Steps between two validation losses; without it only at the end."""
    batch_size: Count = 8
    """Rows of one forward pass on one process."""
    choices: tuple[str, ...] | None = None
    """Completions to choose from for each row of data.test: the likeliest is the answer, and accuracy is
    reported before and after training."""


class Resources(Section):
    """What one job asks for, and how long the chain may become."""

    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of one node; one training process each."""
    processes: Count | None = None
    """Training processes where gpus is 0."""
    cpus_per_process: Count | None = None
    """Cores of each process; the cluster's rule when not given, one thread each on a machine without rule."""
    memory: str | None = None
    """Host memory of one job as Slurm writes it, "60G"; the cluster's rule when not given."""
    walltime: Walltime | None = None
    """Length of one job; the cluster's longest when not given."""
    jobs: Count = 100
    """Jobs of the chain at most."""
    queued: Count = 2
    """Jobs kept waiting behind the running one: with two, a node that fails a job at once does not end the chain."""


class Recipe(Section):
    """One run as the user wrote it, with defaults filled in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]
    task: Literal["instruct", "corpus"]
    cluster: str = "orfeo"
    """A file of hpcft/launch/clusters or ~/.config/hpcft/clusters without its .yaml, or a path to one."""
    env: str | None = None
    """conda environment by name or prefix; the one that submits when not given."""
    model: Model
    data: Data
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    resources: Resources = Resources()

    @property
    def processes(self) -> int:
        """Training processes of one job."""
        return self.resources.gpus or self.resources.processes or 1

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step over all processes."""
        return self.train.batch_size // self.train.micro_batch_size

    @property
    def accumulation(self) -> int:
        """Micro-batches of one step on one process."""
        return self.micro_batches // self.processes


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with what is needed to point at the line of a fault."""

    path: Path
    recipe: Recipe
    lines: dict[str, int] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def where(self, key: str) -> str:
        """`jobs/demo.yaml:7` for a dotted key, or `--set key` where it was overridden."""
        if any(text.split("=", 1)[0].strip() == key for text in self.overrides):
            return f"--set {key}"
        return place(self.path, self.lines, key)


def place(path: Path, lines: Mapping[str, int], key: str) -> str:
    """`jobs/demo.yaml:7`: the line of a dotted key, or of the nearest section around it that the file has."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return f"{path}:{lines.get(key, 1)}"


class _Loader(yaml.SafeLoader):
    """YAML without surprises: `no` and `2:00:00` stay text, and `5e-5` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it


# PyYAML follows YAML 1.1, where 2:00:00 is the integer 7200, no is False and 5e-5 is text.
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML text, and the line of each dotted key. Raises UserError: syntax, duplicate keys."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        faults: list[Fault] = []
        lines: dict[str, int] = {}
        _walk(node, "", path, lines, faults)
        values = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(Fault(f"{path}:{line}", f"no valid YAML: {problem}.")) from None
    finally:
        loader.dispose()
    if faults:
        raise UserError(faults)
    if not isinstance(values, dict):
        raise UserError(Fault(f"{path}:1", "holds no mapping.", "Begin with `name: ...`."))
    return values, lines


def _walk(node: yaml.Node | None, prefix: str, path: Path, lines: dict[str, int], faults: list[Fault]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{prefix}{index}"] = item.start_mark.line + 1
            _walk(item, f"{prefix}{index}.", path, lines, faults)
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if key in lines:
            faults.append(Fault(f"{path}:{line}", f'"{key}" stands here and in line {lines[key]}.', "Keep one."))
        lines.setdefault(key, line)
        _walk(value_node, f"{key}.", path, lines, faults)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """The recipe in a YAML file, with `section.key=value` overrides. Raises UserError with every fault in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise UserError(Fault(str(path), f"cannot be read: {reason}.")) from None
    values, lines = read_yaml(path, text)
    faults = [fault for text in overrides for fault in _override(values, text)]
    file = RecipeFile(path, Recipe.model_construct(), lines, tuple(overrides))
    try:
        recipe = Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise UserError(faults + explain(error, file.where, Recipe)) from None
    if faults:
        raise UserError(faults)
    return RecipeFile(path, _resolve(recipe, path.absolute().parent), lines, tuple(overrides))


def _override(values: dict[str, Any], text: str) -> list[Fault]:
    """Put one `section.key=value` into the values; the value is typed as YAML would type it."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        return [Fault(f"--set {text}", "names no value.", "Write section.key=value.")]
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        return [Fault(f"--set {key}", f"{value!r} is no YAML value: {getattr(error, 'problem', error)}.")]
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return [Fault(f"--set {key}", f'"{section}" is no section of the recipe.')]
        values = inner
    values[last] = parsed
    return []


def explain(error: ValidationError, where: Callable[[str], str], schema: type[BaseModel]) -> list[Fault]:
    """pydantic's complaints as faults; `where` gives the place of a dotted key. An unknown key gets the nearest."""
    faults = []
    for detail in error.errors():
        location = [str(part) for part in detail["loc"]]
        key = ".".join(location)
        if detail["type"] == "extra_forbidden":
            known = _keys(schema, location[:-1])
            faults.append(Fault(where(key), f'unknown key "{key}".', did_you_mean(location[-1], known)))
        elif detail["type"] == "missing":
            faults.append(Fault(where(key), f'"{key}" is missing.'))
        else:
            message = detail["msg"].removeprefix("Value error, ").rstrip(".")
            value = json.dumps(detail["input"], default=str)
            faults.append(Fault(where(key), f"{key} = {value}: {message[:1].lower()}{message[1:]}."))
    return faults


def _keys(schema: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        annotation = schema.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        schema = annotation
    return list(schema.model_fields)


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every path absolute: relative ones stand beside the recipe, wherever hpcft is called."""

    def absolute(text: str | None) -> str | None:
        return None if text is None else str((folder / Path(text).expanduser()).resolve())

    data = recipe.data.model_copy(
        update={key: absolute(getattr(recipe.data, key)) for key in ("train", "validation", "test", "template")}
    )
    model = recipe.model
    if not is_hub_id(model.path, folder):
        model = model.model_copy(update={"path": absolute(model.path)})
    return recipe.model_copy(update={"data": data, "model": model})


def is_hub_id(text: str, folder: Path) -> bool:
    """Whether a model's path can only mean a hub id: shaped like one, and no such folder beside the recipe."""
    return bool(HUB_ID.fullmatch(text)) and text[0] not in "./~" and not (folder / text).exists()
