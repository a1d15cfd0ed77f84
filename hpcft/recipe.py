"""The recipe: what to train, on what, with what resources; a YAML file checked whole before anything runs."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from hpcft.errors import Fault, UserError
from hpcft.schema import (
    Command,
    Constraint,
    Count,
    Loader,
    Mail,
    Memory,
    Name,
    Section,
    SlurmName,
    Walltime,
    Webhook,
    expand,
    explain,
    explain_syntax,
    place,
    read_yaml,
    sections,
)

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Model(Section):
    """Where the pretrained model comes from."""

    path: str
    """A folder, relative to the recipe's own, or a hub id such as `openai-community/gpt2-xl`."""
    revision: str | None = None
    """Commit or tag of a hub id, so that every job of the chain loads the same files."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` takes the model's shape alone, and begins from weights that `train.seed` draws."""
    freeze: Literal["none", "body"] | Count = "none"
    """What is not trained: `body` leaves the head alone to learn; a number freezes the embeddings and that many of the
    lowest layers."""
    quantize: Literal["nf4", "int8"] | None = None
    """Frozen weights in 4 or 8 bits, for `lora` (QLoRA)."""


class Data(Section):
    """Rows and how they become features. Files are .jsonl, .csv or .parquet, relative to the recipe's folder."""

    train: str
    """Rows to learn from."""
    validation: str | None = None
    """Rows for the validation loss; none is computed without them."""
    test: str | None = None
    """Held-out rows for `evaluate.choices`, looked at before and after training."""
    template: str | None = None
    """Markdown file with `{{column}}` placeholders (task instruct). What its last placeholder brings is the
    completion; all before it is the prompt."""
    text: str = "text"
    """Column that holds a document (task corpus)."""
    max_length: Annotated[int, Field(ge=2)] = 512
    """Tokens of a row at most; what is longer is cut at the end, and a block has this length."""
    loss_on: Literal["completion", "full"] = "completion"
    """Which tokens count (task instruct); the end-of-text token always does."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that stack batches, beside each training process."""


class Lora(Section):
    """Train low-rank adapters beside frozen weights (LoRA, arXiv 2106.09685), through peft."""

    rank: Count = 8
    """Columns of an adapter."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """An adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On an adapter's input."""
    targets: tuple[str, ...] | None = None
    """Names of the modules that get an adapter, by their last part (`q_proj`); when not given, the attention's query,
    key and value, which GPT-2 holds in one and which are taken apart for it."""


class Train(Section):
    """How to learn. A step is one update of the optimizer."""

    steps: Count | None = None
    """Length of the run; the learning rate reaches zero at its end."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows, in place of `steps`."""
    batch_size: Count | None = 8
    """Rows of one step, over all processes and micro-batches: the same whatever the number of GPUs."""
    batch_tokens: Count | None = None
    """Tokens of one step, in place of `batch_size`: as many rows as hold about so many, padding not counted."""
    micro_batch_size: Count | Literal["auto"] = 1
    """Rows of one forward pass on one process; accumulation makes up the rest of the batch. With `batch_tokens` or
    `packed` it is the room of a pass: so many times `data.max_length` tokens. `auto` finds the most that the card's
    memory takes when the run begins."""
    grouping: Literal["plain", "bucketed", "packed"] = "bucketed"
    """Which rows meet in a batch. `plain`: in random order, padded to the longest; `bucketed`: rows of like length, so
    that hardly anything is padded; `packed`: in random order, with rows one behind the other in lines of at most
    `data.max_length` tokens, none of which sees another."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Of AdamW, at its peak."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises to its peak; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """For matrices; biases and normalisation weights are left alone."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of AdamW, like `beta2` and `epsilon`."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the whole gradient."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """fp16 and bf16 are automatic mixed precision over fp32 weights."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is no number leads to: `stop` names its rows and keeps the last checkpoint; `skip`
    leaves the weights as they were before that step, and goes on."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third more time for a fraction of their memory."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` holds its moments in 8 bits (bitsandbytes): 2 bytes a parameter in place of 8."""
    sharding: Literal["none", "zero2", "full"] = "none"
    """What the processes share among them: `zero2` gradients and moments, `full` the weights too (FSDP)."""
    offload: bool = False
    """Keep what is sharded in the host's memory."""
    deterministic: bool = True
    """Choose only algorithms that give the same bits each time; without it a resumed run is sample-exact."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the order of rows and of all randomness."""
    log_every: Count = 1
    """Steps between two points of the training curve; a point is the token mean since the last one."""
    save_every: Count | Literal["auto"] = "auto"
    """Steps between two checkpoints, beside the one at the end of each job; `auto` weighs what a save costs against
    what a kill would lose."""
    keep_checkpoints: Count = 2
    """Newest ones that stay; an older one goes when a newer one is whole on disk."""
    keep_bytes: Memory | None = None
    """Disk for all checkpoints together, "60G", the one that is being written among them: the oldest go until they fit,
    the newest always stays."""
    keep_best: bool = False
    """Keep the weights of the lowest validation loss too, as a model in best/; nothing prunes them."""

    def epoch_steps(self, rows: int, tokens: int, longest: int) -> float:
        """Steps of one epoch of so many rows; with `batch_tokens` a whole number."""
        if self.batch_tokens is None:
            assert self.batch_size is not None
            return rows / self.batch_size
        # As many tokens a step as the longest row has, at least: then none is without a row.
        return max(1, min(round(tokens / self.batch_tokens), tokens // longest))

    def total_steps(self, rows: int, tokens: int, longest: int) -> int:
        """Steps of the run, on so many rows with so many tokens, `longest` in one of them."""
        return self.steps or max(1, round((self.epochs or 0) * self.epoch_steps(rows, tokens, longest)))


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

    nodes: Count = 1
    """Nodes of one job."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """GPUs of one node; one training process each."""
    processes: Count | None = None
    """Training processes of one node where gpus is 0."""
    cpus_per_process: Count | None = None
    """Cores of each process, and its threads; when not given, the cluster's rule and one thread."""
    memory: Memory | None = None
    """Host memory of each node of a job as Slurm writes it, "60G"; the cluster's rule when not given."""
    walltime: Walltime | None = None
    """Length of one job; the cluster's longest when not given."""
    account: SlurmName | None = None
    """Slurm's account, in place of the cluster's; likewise the next three."""
    partition: SlurmName | None = None
    qos: SlurmName | None = None
    constraint: Constraint | None = None
    jobs: Count = 100
    """Jobs of the chain at most; `hpcft resume` grants as many again."""
    queued: Count = 2
    """Jobs kept waiting behind the running one: with two, a node that fails a job at once does not end the chain."""


class Notify(Section):
    """Who is told when the run has finished, a job of it has failed, or the chain has halted; never of a mere cut.
    [notices.md](notices.md) has what is sent."""

    mail: Mail | None = None
    """Address that Slurm writes to, when the job ends in which it happened."""
    command: Command | None = None
    """A program with arguments, `./tell.sh --loud`, run on the job's first node without a shell; the variables
    HPCFT_RUN, HPCFT_EVENT, HPCFT_REASON, HPCFT_DIR and more tell it what happened."""
    webhook: Webhook | None = None
    """Web address that gets a JSON POST, as Slack and Mattermost take it."""


class Recipe(Section):
    """One run as the user wrote it, with defaults filled in."""

    name: Name
    """What runs of this recipe are called."""
    task: Literal["instruct", "corpus"]
    """`instruct`: prompt and completion; `corpus`: plain text in blocks."""
    cluster: str = "orfeo"
    """A file of hpcft/launch/clusters or ~/.config/hpcft/clusters without its .yaml, or a path to one."""
    env: str | None = None
    """conda environment by name, by prefix, which has a slash, or by its file, `../envs/v100.yml`; the one that submits
    when not given."""
    model: Model
    data: Data
    lora: Lora | None = None
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    resources: Resources = Resources()
    notify: Notify = Notify()

    @property
    def processes(self) -> int:
        """Training processes of one job."""
        return self.resources.nodes * self.local_processes

    @property
    def local_processes(self) -> int:
        """Training processes of one node."""
        return self.resources.gpus or self.resources.processes or 1


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with what is needed to point at the line of a fault."""

    path: Path
    recipe: Recipe
    lines: dict[str, int] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    doubtful: frozenset[str] = frozenset()
    """Top keys with a fault in them: what lies below is not what the user meant."""

    def where(self, key: str) -> str:
        """`jobs/demo.yaml:7` for a dotted key, or `--set key` where it, or what holds it, was overridden."""
        for text in self.overrides:
            given = text.split("=", 1)[0].strip()
            made = key not in self.lines and given.startswith(f"{key}.")  # the section is not in the file
            if made or f"{key}.".startswith(f"{given}."):
                return f"--set {given}"
        return place(self.path, self.lines, key)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """The recipe in a YAML file, with `section.key=value` overrides. Raises UserError with every fault in it."""
    file, faults = check_recipe(path, overrides)
    if faults or file is None:
        raise UserError(faults)
    return file


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[RecipeFile | None, list[Fault]]:
    """The recipe less what is wrong in it, and its faults; None for the recipe where too little is left.

    Raises UserError if the file cannot be read, or not as YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(Fault(str(path), f"cannot be read: {reason}.")) from None
    values, lines = read_yaml(path, text)
    for key, section in sections(Recipe).items():
        if section and key in values and values[key] is None:
            values[key] = {}  # all its lines are comments
    faults = [fault for text in overrides for fault in apply_override(values, text)]
    doubtful = {text.partition("=")[0].partition(".")[0].strip() for text in overrides if faults}
    file = RecipeFile(path, Recipe.model_construct(), lines, tuple(overrides))
    try:
        recipe = _validate(values)
    except ValidationError as error:
        faults += explain(error, file.where, Recipe)
        doubtful |= {str(detail["loc"][0]) for detail in error.errors()}
        try:
            recipe = _validate(_without(values, [detail["loc"][:2] for detail in error.errors()]))
        except ValidationError:
            return None, faults
    recipe = _resolve(recipe, path.absolute().parent)
    return RecipeFile(path, recipe, lines, tuple(overrides), frozenset(doubtful)), faults


def _validate(values: Mapping[str, Any]) -> Recipe:
    return Recipe.model_validate_json(json.dumps(values, default=str))


def _without(values: Mapping[str, Any], locations: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values less what stands at these places, each a key, or a section and a key."""
    kept = {}
    for key, value in values.items():
        if (key,) in locations:
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
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return [Fault(f"--set {key}", f'"{section}" is no section of the recipe.', "Write section.key=value.")]
        values = inner
    values[last] = parsed
    return []


def is_path(text: str) -> bool:
    """Whether a cluster or env is meant by its place and not by its name."""
    return "/" in text or text.endswith((".yaml", ".yml"))


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every path absolute: relative ones stand beside the recipe, wherever hpcft is called.

    And with one of batch_size and batch_tokens where the user gave no more.
    """

    def absolute(text: str | None) -> str | None:
        return None if text is None else str((folder / expand(text)).resolve())

    data = recipe.data.model_copy(
        update={key: absolute(getattr(recipe.data, key)) for key in ("train", "validation", "test", "template")}
    )
    model = recipe.model
    if not is_hub_id(model.path, folder):
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
    return recipe.model_copy(update={"data": data, "model": model, "train": train, "notify": notify, **named})


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
