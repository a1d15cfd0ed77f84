"""`hpcft fetch`: a model of the hub brought into the cluster's cache, from where jobs without internet load it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch import chain
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, find_env
from hpcft.launch.fetchrows import fetch_rows, hub_rows
from hpcft.launch.hub import hub_cache, hub_variables, is_hub_id, lacks, run_model
from hpcft.launch.plan import find_site
from hpcft.launch.room import gigabytes
from hpcft.launch.slurm import own_words, scrubbed_environment
from hpcft.launch.slurm_transfer import transfer_command
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile, check_members
from hpcft.rundir import RunDir
from hpcft.sections import Model

DOWNLOAD = (
    "import runpy, sys; sys.path.insert(0, {code!r}); import hpcft; del sys.path[0]; "
    "runpy.run_module('hpcft.launch.download', run_name='__main__')"
)
"""Our hpcft and nothing else from its folder: in an env that is all of its packages, before those of the jobs' env."""
QUIET_INTERVAL = 5.0
"""Seconds between two plain lines where there is no terminal."""


@dataclass(frozen=True)
class Wanted:
    """A model, and who wants it where."""

    where: str
    """Where it is named, for a fault."""
    model: Model
    cluster: Cluster
    env: Env
    account: str | None = None
    """The recipe's own."""
    recipe: Recipe | None = None
    """Whose rows are brought too."""

    @property
    def command(self) -> list[str]:
        """What brings it: in the env of the jobs, whose huggingface_hub will read the cache too."""
        revision, cache = self.model.revision or "main", hub_cache(self.cluster)
        code = DOWNLOAD.format(code=str(Path(hpcft.__file__).parent.parent))
        python = [str(self.env.python), "-u", "-c", code]
        return transfer_command(self.cluster, [*python, self.model.path, revision, str(cache)], self.account)


def wanted(path: Path, overrides: tuple[str, ...], cluster_name: str | None) -> list[Wanted]:
    """The models of a recipe, of which a matrix may have several, or of a run, for its folder. Raises UserError."""
    if (path / "recipe.json").is_file():
        if overrides or cluster_name:
            raise UserError(Fault(str(path), "is a run: its recipe and cluster are settled.", "Leave out the options."))
        run = RunDir(path.absolute())
        account = run.recipe.resources.account
        return [Wanted(str(path), run_model(run), chain.run_cluster(run), chain.run_env(run), account, run.recipe)]
    members = check_members(path, overrides)
    if faults := list(dict.fromkeys(fault for member in members for fault in member.faults)):
        raise UserError(faults)
    found = [_wanted(member.file, cluster_name) for member in members if member.file]
    return list(
        {(want.model.path, want.model.revision, str(want.recipe and want.recipe.data)): want for want in found}.values()
    )


def _wanted(file: RecipeFile, cluster_name: str | None) -> Wanted:
    faults: list[Fault] = []
    cluster = env = None
    try:
        cluster = find_site(file, cluster_name).cluster
    except UserError as error:
        faults += error.faults
    try:
        env = find_env(file.recipe.env, file.where("env"), cluster.folder("envs") if cluster else None)
    except UserError as error:
        faults += error.faults
    if cluster is None or env is None:
        raise UserError(faults)
    return Wanted(file.where("model.path"), file.recipe.model, cluster, env, file.recipe.resources.account, file.recipe)


def fetch(want: Wanted) -> None:
    """Bring model and rows, and say what came and where it lies. Raises UserError with what the hub answered."""
    rows = want.recipe is not None and any(hub_rows(each) for each in want.recipe.each_phase())
    if is_hub_id(want.model):
        fetch_model(want)
    elif not rows:
        print(f"nothing to fetch: the model is the folder {want.model.path}, and data are files")
    if rows and want.recipe:
        fetch_rows(want.recipe, want.cluster, want.env)


def fetch_model(want: Wanted) -> None:
    """Bring the model. Raises UserError with what the hub answered."""
    model, cluster = want.model, want.cluster
    cache = hub_cache(cluster)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = "Name another cache in the cluster's file."
        raise UserError(Fault(want.where, f"the cache {cache} cannot be made: {reason}.", fix)) from None
    facts: dict[str, Any] = {}
    with tempfile.TemporaryFile() as errors, scrubbed_environment():
        child = _start(want, errors)
        try:
            show(model.path, _answers(child, facts))
            code = child.wait()
        except KeyboardInterrupt:
            child.terminate()  # srun takes one Ctrl-C for a question, and its job goes on
            child.wait()
            print(f"\nstopped; `hpcft fetch` goes on with what is in {cache}", file=sys.stderr)
            raise
        errors.seek(0)
        words = own_words(Path(want.command[0]).name, errors.read().decode(errors="replace"))
    if fault := facts.get("fault"):
        raise UserError(Fault(want.where, f"{model.path} {fault['what']}", fault["fix"]))
    if code or "folder" not in facts:
        what = f"{model.path} cannot be fetched: {words or f'exit code {code}'}"
        raise UserError(Fault(want.where, what))
    folder = Path(facts["folder"])
    if missing := lacks(folder):
        raise UserError(Fault(want.where, f"{model.path} as the hub has it is not whole: no {', '.join(missing)}."))
    came = f"{facts['files']} files, {gigabytes(facts['bytes'])}, commit {facts['commit']}"
    print(f"{model.path} at {model.revision or 'main'}: {came}, in {folder}")


def _start(want: Wanted, errors: IO[bytes]) -> subprocess.Popen[str]:
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
    python = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
    variables = {**os.environ, **hub_variables(want.cluster), **quiet, **python}
    command = want.command
    if command[0] == "srun":
        print(f"asks Slurm for a node: {' '.join(word for word in command if word.startswith('--'))}", flush=True)
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
        )
    except FileNotFoundError:
        raise UserError(Fault(command[0], "is not on PATH.", "Fetch on a login node of the cluster.")) from None


def _answers(child: subprocess.Popen[str], facts: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """(bytes here, bytes in all) as the child goes on; what else it says is put into `facts`."""
    assert child.stdout is not None
    for line in child.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # some site's greeting
        if isinstance(said, dict):
            facts.update(said)
            if "bytes" in facts:
                yield int(said.get("done", facts["bytes"] if "folder" in said else 0)), int(facts["bytes"])


def show(name: str, answers: Iterator[tuple[int, int]]) -> None:
    """A bar on a terminal, elsewhere a plain line every few seconds."""
    if sys.stdout.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn()) as bar:
            task = bar.add_task(name, total=None)
            for done, total in answers:
                bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()
    for done, total in answers:
        if time.monotonic() - last >= QUIET_INTERVAL:
            last = time.monotonic()
            print(f"{name}: {gigabytes(done)} of {gigabytes(total)}", flush=True)
