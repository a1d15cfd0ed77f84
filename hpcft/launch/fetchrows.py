"""Rows of the hub: brought into the cluster's cache by `hpcft fetch`, and missed before the queue, not in it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.hub import hub_home, hub_variables
from hpcft.launch.slurm import own_words, scrubbed_environment
from hpcft.launch.slurm_transfer import transfer_command
from hpcft.launch.words import count
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile

DOWNLOAD = (
    "import runpy, sys; sys.path.insert(0, {code!r}); import hpcft; del sys.path[0]; "
    "runpy.run_module('hpcft.data.download', run_name='__main__')"
)
"""Our hpcft, and all else from the env of the jobs, whose `datasets` will read the cache too."""


def hub_rows(recipe: Recipe) -> dict[str, str]:
    """`owner/name` by the key that names it, of rows that come from the hub."""
    keys = ("train", "validation", "test")
    named = {f"data.{key}": getattr(recipe.data, key) for key in keys}
    return {key: text.partition(":")[0] for key, text in named.items() if text and not text.startswith("/")}


def absent_rows(file: RecipeFile, cluster: Cluster, command: str) -> Iterator[Fault]:
    """Datasets that jobs of this cluster could not load, with the command that brings them."""
    if cluster.internet:
        return
    given = os.environ.get("HF_DATASETS_CACHE") if cluster.cache is None else None
    cache = Path(given) if given else hub_home(cluster) / "datasets"
    for one in file.each_phase():
        for key, name in hub_rows(one.recipe).items():
            if not (cache / name.replace("/", "___")).is_dir():
                what = f"{name} is not in {cache}, and nodes of {cluster.name} do not reach the hub."
                yield Fault(one.where(key), what, f"`{command}` brings it.")


def fetch_rows(recipe: Recipe, cluster: Cluster, env: Env) -> None:
    """Bring the datasets that a recipe names, and say what came. Raises UserError with what the hub answered."""
    code = DOWNLOAD.format(code=str(Path(hpcft.__file__).parent.parent))
    python = [str(env.python), "-u", "-c", code, recipe.model_dump_json()]
    command = transfer_command(cluster, python, recipe.resources.account)
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    path = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    with scrubbed_environment():
        variables = {**os.environ, **hub_variables(cluster), **quiet, **path}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=variables, check=False
        )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for facts in said:
        if fault := facts.get("fault"):
            raise UserError(Fault(*fault))
        print(f"{facts['place']}, {facts['split']}: {count(facts['rows'], 'row')}, commit {facts['commit']}")
    if done.returncode:
        words = own_words(Path(command[0]).name, done.stderr) or done.stderr.strip().rpartition("\n")[2]
        raise UserError(Fault(command[0], f"the rows cannot be fetched: {words or f'exit code {done.returncode}'}"))
