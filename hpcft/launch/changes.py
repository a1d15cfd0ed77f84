"""Changes: which keys of a run's recipe `--set` may still alter, what that does to the run, and the record of it."""

from __future__ import annotations

import getpass
import json
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpcft.disk import read_json, write_json
from hpcft.errors import Fault
from hpcft.launch.provenance import provenance
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile, apply_override, item_names, resolve_notify, with_names
from hpcft.rundir import RunDir
from hpcft.schema import explain
from hpcft.yamlfile import read_yaml

NOTHING = ""
SAMPLES = "the same rows in the same order from here on, though not to the last bit"
LEARNT = "from here on the run learns otherwise than its recipe said at first"

ALLOWED = {
    "resources": NOTHING,
    "resources.nodes": SAMPLES,
    "resources.gpus": SAMPLES,
    "resources.processes": SAMPLES,
    "resources.cpus_per_process": SAMPLES,
    "notify": NOTHING,
    "track": NOTHING,
    "data.workers": NOTHING,
    "evaluate.every": NOTHING,
    "evaluate.batch_size": NOTHING,
    "train.log_every": NOTHING,
    "train.save_every": NOTHING,
    "train.keep_checkpoints": NOTHING,
    "train.keep_bytes": NOTHING,
    "train.keep_best": NOTHING,
    "train.on_nonfinite": NOTHING,
    "train.gradient_checkpointing": SAMPLES,
    "train.sharding": SAMPLES,
    "train.offload": SAMPLES,
    "train.deterministic": SAMPLES,
    "train.micro_batch_size": SAMPLES,
    "train.precision": SAMPLES,
    "train.learning_rate": LEARNT,
    "train.warmup_steps": LEARNT,
    "train.weight_decay": LEARNT,
    "train.beta1": LEARNT,
    "train.beta2": LEARNT,
    "train.epsilon": LEARNT,
    "train.clip_norm": LEARNT,
}
"""What may change, a key or a whole section, and what that does to the promise of an uncut run."""
SETTLED = {
    "name": "the run's directory and its jobs are called so.",
    "cluster": "its jobs are recorded in the queue of that cluster.",
    "env": "its jobs were recorded in that env.",
    "matrix": "it is one run of it.",
    "task": "its rows are tokenised once, for this one.",
    "model": "its checkpoints are of this one.",
    "data": "its rows are tokenised once, in the first job.",
    "evaluate.choices": "accuracy before and after would be answers to two questions.",
    "train.steps": "the learning rate of every step so far was reckoned from it.",
    "train.epochs": "the learning rate of every step so far was reckoned from it.",
    "train.batch_size": "rows would be skipped or seen twice.",
    "train.batch_tokens": "rows would be skipped or seen twice.",
    "train.grouping": "rows would be skipped or seen twice.",
    "train.optimizer": "its moments are of another kind.",
    "phases": "the steps of all its phases are settled when it begins.",
    "lora": "its checkpoints are of these adapters.",
    "train.seed": "rows would be skipped or seen twice.",
}
"""What must stay, and why. A key that stands in neither table must stay too."""


ANEW = "Submit a new run."
SECRET = re.compile(r"(https?://[^/\s\"',}]+)/[^\s\"',}]*")


@dataclass(frozen=True)
class Change:
    """New values for a run's recipe, checked."""

    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    """The whole recipe, as it is to be written."""
    before: Mapping[str, Any]
    """Old value by dotted key, of what is to change."""
    after: Mapping[str, Any]

    def words(self) -> list[str]:
        """A line for each key: what it was, what it is, and what that does."""
        return [line(key, self.before[key], value) for key, value in self.after.items()]


def line(key: str, before: Any, after: Any) -> str:
    """`train.learning_rate: 5e-05 -> 1e-05; from here on ...`."""
    effect = _lookup(ALLOWED, key)
    values = masked(key, f"{json.dumps(before)} -> {json.dumps(after)}")
    return f"{key}: {values}{f'; {effect}' if effect else ''}"


def masked(key: str, text: str) -> str:
    """The text without the secret part of a webhook, whose key this is: what is printed is copied into mails."""
    return SECRET.sub(r"\1/…", text) if key.startswith("notify") else text


def standing(run: RunDir, overrides: Sequence[str] = ()) -> tuple[RecipeFile, Change, list[Fault]]:
    """The run's recipe with those of these overrides that are values of a recipe, what they change, and all that is
    wrong with them.
    """
    raw = json.loads((run.path / "recipe.json").read_bytes())
    values = json.loads(json.dumps(raw))
    lines: dict[str, int] = {}
    given = run.path / "recipe.yaml"
    if given.is_file():
        lines = read_yaml(given, given.read_text(encoding="utf-8"))[1]
    record = provenance(run)
    known = tuple(record.get("overrides") or ())
    lines = with_names(lines, raw)
    file = RecipeFile(given, Recipe.model_construct(), lines, (*overrides, *known))
    faults = [fault for text in overrides for fault in apply_override(values, text)]
    old = Recipe.model_validate_json(json.dumps(raw))
    try:
        new = Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        faults += explain(error, file.where, Recipe, item_names(values))
        for detail in error.errors():
            _put_back(values, raw, [str(part) for part in detail["loc"][:2]])
        new = Recipe.model_validate_json(json.dumps(values, default=str))
    # Nothing else is resolved again: a folder that has become a link since would look like another.
    folder = Path(record.get("recipe") or given).parent
    new = new.model_copy(update={"notify": resolve_notify(new.notify, folder)})
    if [phase.name for phase in new.phases] != [phase.name for phase in old.phases]:
        faults.append(Fault(file.where("phases"), f"phases cannot change in a run: {SETTLED['phases']}", ANEW))
        new = new.model_copy(update={"phases": old.phases})
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    # A phase holds only what it was given: what it has not is as in the run's own sections.
    before = {key: before.get(key, before.get(_of_phase(key))) for key in after}
    changed = [key for key in after if after[key] != before[key]]
    own = _flat(raw)
    for key in changed:
        is_known = _of_phase(key) in own
        faults += _refusal(file.where(key), key, after[key], is_known, str(record.get("hpcft") or "an older one"))
    # Only what has changed is written: the run's own hpcft, which reads it, may be of another version than this one.
    for key in changed:
        _put(raw, key, after[key])
    change = Change(tuple(overrides), raw, {key: before[key] for key in changed}, {key: after[key] for key in changed})
    return RecipeFile(given, new, lines, (*overrides, *known)), change, faults


def _put_back(values: dict[str, Any], raw: Mapping[str, Any], location: Sequence[str]) -> None:
    """Give a key, or a key of a section, the value again that the run has, or none."""
    key, *inner = location
    old, new = raw.get(key), values.get(key)
    if inner and isinstance(old, dict) and isinstance(new, dict):
        _put_back(new, old, inner)
    elif key in raw:
        values[key] = json.loads(json.dumps(old))
    else:
        values.pop(key, None)


def _refusal(where: str, key: str, value: Any, known: bool, version: str) -> list[Fault]:
    shown = f"{key} = {json.dumps(value)}"
    if not known:
        return [Fault(where, f"{shown}: the run's own hpcft, {version}, has no such key.", ANEW)]
    if _lookup(ALLOWED, key) is not None or (key, value) == ("evaluate.choices", None):
        return []
    why = _lookup(SETTLED, key) or "it is settled when a run begins."
    return [Fault(where, f"{shown} cannot change in a run: {why}", ANEW)]


def _lookup(table: Mapping[str, str], key: str) -> str | None:
    """What a table says of a dotted key, or of the section around it; of a phase's the same as of the run's own."""
    key = _of_phase(key)
    while key:
        if key in table:
            return table[key]
        key = key.rpartition(".")[0]
    return None


def record(run: RunDir, change: Change, verb: str) -> None:
    """Write down who changes what, and then change it; nothing if there is nothing to change.

    The recipe is replaced whole and last. An entry that is not true of it was never in force, and is left out by
    `changes`: a kill between the two files changes nothing.
    """
    if not change.after:
        return
    jobs = [job.number for job in run.jobs() if job.started]
    entry = {
        "time": time.time(),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "verb": verb,
        "after_job": max(jobs, default=0),
        "step": max(run.saved_steps(), default=0),
        "set": list(change.overrides),
        "before": dict(change.before),
        "after": dict(change.after),
    }
    write_json(run.path / "changes.json", {"changes": [*changes(run), entry]})
    write_json(run.path / "recipe.json", change.values)


def changes(run: RunDir) -> list[dict[str, Any]]:
    """Every change that came into force, the oldest first: {time, user, verb, after_job, step, set, before, after}."""
    found: list[dict[str, Any]] = (read_json(run.path / "changes.json") or {"changes": []})["changes"]
    if found:
        now = _flat(read_json(run.path / "recipe.json") or {})
        if any(now.get(key) != value for key, value in found[-1]["after"].items()):
            return found[:-1]
    return found


def _of_phase(key: str) -> str:
    """`train.steps` for `phases.full.train.steps`; other keys as they are."""
    return key.split(".", 2)[2] if key.startswith("phases.") and key.count(".") > 1 else key


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train.seed": 0, "phases.full.train.steps": 9, ...} for {"train": {"seed": 0}, "phases": [{"name": "full", ...

    The names of phases are in their keys.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "phases" and not prefix:
            for phase in value:
                inner = {section: given for section, given in phase.items() if section != "name"}
                flat |= _flat(inner, f"phases.{phase['name']}.")
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    if sections[:1] == ["phases"]:
        values = next(phase for phase in values["phases"] if phase["name"] == sections[1])
        sections = sections[2:]
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value
