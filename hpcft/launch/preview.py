"""`hpcft data show`: rows as the model will see them, asked of the recipe's env and shown in the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, find_env
from hpcft.launch.hub import hub_variables
from hpcft.launch.plan import find_site, runs_root
from hpcft.launch.rowcheck import data_faults
from hpcft.launch.slurm import scrubbed_environment
from hpcft.launch.words import count
from hpcft.recipe import Recipe
from hpcft.recipefile import read_recipe

STYLES = {"prompt": "", "learnt": "bold green", "cut": "red strike"}
PLAIN = {"prompt": ("", ""), "learnt": ("«", "»"), "cut": ("[cut: ", "]")}
"""What stands around a stretch where there are no colours."""
SPLITS = ("train", "validation", "test")


def preview(
    path: Path, overrides: tuple[str, ...], cluster: str | None, split: str, rows: int, phase: str | None = None
) -> dict[str, Any]:
    """What `hpcft.train.preview` says, run by the python of the recipe's env. Raises UserError with every fault.

    Of a recipe with phases, the rows of the first one, or of that which is named.
    """
    whole = read_recipe(path, overrides)
    each = {one.phase: one for one in whole.each_phase()}
    if phase is not None and phase not in each:
        names = ", ".join(name for name in each if name)
        fix = f"It has {names}." if names else "It has no phases."
        raise UserError(Fault("--phase", f'"{phase}" is no phase of the recipe.', fix))
    file = each[phase] if phase else next(iter(each.values()))
    if split not in SPLITS or not file.recipe.data.has(split):
        there = ", ".join(name for name in SPLITS if file.recipe.data.has(name))
        raise UserError(Fault("--split", f'the recipe has no rows for "{split}".', f"It has {there}."))
    if faults := list(data_faults(file)):
        raise UserError(faults)
    site = find_site(file, cluster).cluster
    env = find_env(file.recipe.env, file.where("env"), site.folder("envs"))
    root = runs_root(None, site)
    return _ask(file.recipe, site, env, [split, str(rows), str(root / ".splits") if root.is_dir() else ""])


def _ask(recipe: Recipe, cluster: Cluster, env: Env, words: list[str]) -> dict[str, Any]:
    with scrubbed_environment(), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(recipe.model_dump_json())
        file.flush()
        own = {"PYTHONPATH": str(Path(hpcft.__file__).parents[1]), "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
        variables = {**os.environ, **hub_variables(cluster), **own}
        command = [str(env.python), "-m", "hpcft.train.preview", file.name, *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=variables, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):  # its traceback is on stderr
        fix = f"Try the env: `hpcft env check {env.prefix}`."
        raise UserError(Fault("hpcft data show", f"the python of {env.prefix} failed.", fix)) from None
    if faults := answer.get("faults"):
        raise UserError([Fault(*fault) for fault in faults])
    return answer


def print_preview(answer: dict[str, Any]) -> None:
    """The preview for a person: trained tokens coloured on a terminal, between marks elsewhere."""
    console = Console(soft_wrap=True, highlight=False)
    legend = [("prompt", f"{answer['place']}: "), ("learnt", "learnt"), ("prompt", " "), ("cut", "cut off")]
    console.print(_painted(legend, console.is_terminal))
    for number, pieces in enumerate(answer["shown"], 1):
        console.print(Text(f"-- {answer['unit']} {number}", style="dim"))
        console.print(_painted(pieces, console.is_terminal))
    console.print()
    for key, words in figures(answer):
        console.print(Text(f"{key:12} {words}"))


def _painted(pieces: Sequence[tuple[str, str]], colours: bool) -> Text:
    """Stretches of text, each in its kind's colour, or between its marks."""
    if colours:
        return Text.assemble(*((text, STYLES[kind]) for kind, text in pieces))
    return Text("".join(text.join(PLAIN[kind]) for kind, text in pieces))


def figures(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of the rows that were looked at, in words."""
    unit = answer["unit"]
    if answer["chosen"]:
        yield "rows", answer["chosen"]
    yield "looked at", f"the first {count(answer['looked_at'], unit)}"
    if answer["labels"]:
        counted = zip(answer["labels"], answer["of_each"], strict=True)
        yield "classes", ", ".join(f"{label} {rows}" for label, rows in counted)
    else:
        yield "learnt", f"{answer['learnt']:.1%} of the tokens"
    lengths = answer["lengths"]
    yield "tokens", f"half have {lengths['50']} or less, 90% {lengths['90']}, 99% {lengths['99']}, all {lengths['100']}"
    if unit == "row":
        share = answer["cut_tokens"] / max(1, answer["tokens"])
        cut = f"{count(answer['cut_rows'], 'row')}, {share:.1%} of all tokens" if answer["cut_rows"] else "nothing"
        yield "cut off", f"{cut} at data.max_length = {answer['max_length']}"
    if answer["unlearnt_rows"]:
        what = f"{count(answer['unlearnt_rows'], unit)} would have no token to learn"
        yield "refused", f"{what}: raise data.max_length, or leave them out by data.filter.max_tokens"
