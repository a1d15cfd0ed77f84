"""`hpcft generate`: which model writes behind which prompts, and the process that lets it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError
from hpcft.launch.inenv import Left, call, call_python, env_faults
from hpcft.template import PromptTemplate, read_template

MODULE = "hpcft.train.generate"
INPUTS = (".jsonl", ".json", ".csv", ".parquet", ".txt")
"""Endings of files of rows; of a .txt each line is a prompt."""
TEMPLATE = "prompt.md"
"""In a folder that `hpcft export` has made: the template that the model learnt with."""


@dataclass(frozen=True)
class Writing:
    """What is asked of a model: one prompt, a file of them, or with neither a talk."""

    model: Left | Path
    """Of a run, or a folder of transformers."""
    prompt: str | None = None
    input: Path | None = None
    output: Path | None = None
    raw: bool = False
    """Prompts as they are, without a template around them."""
    batch_size: int = 8
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `evaluate.generate` in a recipe, where they are given."""

    @property
    def template(self) -> Path | None:
        """What stands around prompts."""
        if self.raw:
            return None
        if isinstance(self.model, Path):
            return found if (found := self.model / TEMPLATE).is_file() else None
        named = self.model.run.recipe.each_phase()[-1].data.template
        return Path(named) if named else None

    def as_json(self) -> str:
        """As the process is told."""
        run = None if isinstance(self.model, Path) else str(self.model.run.path)
        what = {
            "run": run,
            "model": str(self.model) if isinstance(self.model, Path) else self.model.name,
            "prompt": self.prompt,
            "input": str(self.input.absolute()) if self.input else None,
            "output": str(self.output.absolute()) if self.output else None,
            "template": str(self.template) if self.template else None,
            "batch_size": self.batch_size,
            "settings": {key: value for key, value in self.settings.items() if value is not None},
        }
        return json.dumps(what)


def means_folder(text: str) -> bool:
    """Whether this is a folder of transformers, not a run's name."""
    return (Path(text) / "config.json").is_file()


def faults(writing: Writing) -> list[Fault]:
    """Everything that is in the way, as far as it can be known without torch."""
    found = []
    if writing.prompt is not None and writing.input:
        found.append(Fault("--prompt", "--input is given too.", "Leave out one of the two."))
    if writing.output and not writing.input:
        found.append(Fault("--output", "goes with --input.", "Name a file of rows or prompts there."))
    if writing.input and writing.input.suffix not in INPUTS:
        found.append(Fault("--input", f"{writing.input} is of no format known here.", f"Use {', '.join(INPUTS)}."))
    elif writing.input and not os.access(writing.input, os.R_OK):
        found.append(Fault("--input", f"{writing.input} cannot be read.", "Name a file of rows or prompts."))
    if writing.output and (os.path.lexists(writing.output) or writing.output.suffix != ".jsonl"):
        what = "exists." if writing.output.suffix == ".jsonl" else "has another ending than .jsonl."
        found.append(Fault("--output", f"{writing.output} {what}", "Name a new .jsonl file."))
    if writing.settings.get("top_p") is not None and not 0 < writing.settings["top_p"] <= 1:
        found.append(Fault("--top-p", f"{writing.settings['top_p']:g} is no share.", "Write more than 0, at most 1."))
    if isinstance(writing.model, Left) and (run := writing.model.run).recipe.has_classes:
        what = f"the task {run.recipe.task} gives classes, and no text."
        return [*found, Fault(run.name, what, f"`hpcft evaluate {run.name}` asks it about rows.")]
    found += _template_faults(writing)
    if isinstance(writing.model, Path):
        if not (find_spec("torch") and find_spec("transformers")):
            what = f"{sys.executable} has no torch and transformers."
            found.append(Fault("hpcft generate", what, "Call it in an env that has them, or name a run."))
        return found
    return [*found, *writing.model.faults(start=True), *env_faults(writing.model.run)]


def _template_faults(writing: Writing) -> list[Fault]:
    if writing.template is None:
        return []
    try:
        template = read_template(writing.template)
    except (OSError, UnicodeDecodeError):
        return [Fault(str(writing.template), "cannot be read.", "Put it back, or add --raw for prompts as they are.")]
    if writing.prompt is not None and len(names := asked(template)) != 1:
        words = ", ".join(f'"{name}"' for name in names)
        fix = "Give rows with --input, or add --raw for a prompt as it is."
        return [Fault("--prompt", f"the template {writing.template} takes {words}, not one text.", fix)]
    return []


def asked(template: PromptTemplate) -> list[str]:
    """The columns of a prompt, each once."""
    return list(dict.fromkeys(template.columns[:-1]))


def write(writing: Writing) -> int:
    """The exit code of the process that writes. Raises UserError with every fault that is found before it starts."""
    if found := faults(writing):
        raise UserError(found)
    if isinstance(writing.model, Path):
        return call_python(Path(sys.executable), MODULE, [writing.as_json()], {}, terminal=True)
    return call(writing.model.run, MODULE, [writing.as_json()], terminal=True)
