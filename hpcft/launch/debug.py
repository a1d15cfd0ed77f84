"""`hpcft debug`: a shell, or a run's first steps, where a job would run and as it would run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hpcft
from hpcft.disk import Lock, locked, write_json
from hpcft.errors import Fault, UserError
from hpcft.launch import chain, slurm
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, worker_variables
from hpcft.launch.hub import hub_variables
from hpcft.launch.plan import Plan
from hpcft.launch.submission import code_setup, flags, slurm_options
from hpcft.recipe import Recipe
from hpcft.recipefile import is_path
from hpcft.rundir import RunDir, make_root

SHORT = "0:30:00"
"""Walltime where neither command nor cluster names one."""
STEPS = 3
"""Steps that `--run` makes when not told how many."""
MODULE = "hpcft.train.debug"
LEAK = "unset ${!SLURM_NTASKS*} ${!SLURM_STEP*} SLURM_PROCID SLURM_LOCALID SLURM_TASKS_PER_NODE"
"""What srun sets for its own task makes libraries believe that they were started as ranks."""
FRESH = 60.0
"""Seconds for which the folder of a session is left alone, whether it is locked or not."""
FAREWELL = 10.0
"""Seconds that srun has to end when our terminal has closed."""


@dataclass(frozen=True)
class Program:
    """A module that is run there, in place of the first steps: it gets the session's folder and these words."""

    module: str
    words: tuple[str, ...]
    verb: str


@dataclass(frozen=True)
class Session:
    """What is looked into, and where."""

    name: str
    recipe: Recipe
    """As it is run here: on one node."""
    cluster: Cluster
    env: Env
    code: Path | None
    """Folder that hpcft is imported from; the session's own, with nothing else in it, when not given."""
    steps: int | None = None
    """Steps to run in the terminal; a shell when not given."""
    walltime: str | None = None
    run: RunDir | None = None
    """The run whose newest checkpoint and features are read, and nothing of which is written."""
    program: Program | None = None
    """What is run; a shell, or the first steps, when not given."""


def means_recipe(text: str) -> bool:
    """Whether this is a recipe's file, not a run's name: by its folder, its ending, or since there is such a file."""
    return is_path(text) or Path(text).is_file()


def of_recipe(plan: Plan, steps: int | None, walltime: str | None) -> Session:
    """A session with the code as it is now."""
    recipe = on_one_node(plan.recipe, alone=steps is not None)
    return Session(recipe.name, recipe, plan.cluster, plan.env, None, steps, walltime)


def of_run(run: RunDir, steps: int | None, walltime: str | None, program: Program | None = None) -> Session:
    """A session with a run's own code, env and cluster. Raises UserError if they cannot be had."""
    cluster, env, faults = chain.run_cluster(run), chain.run_env(run), []
    if not os.access(env.python, os.X_OK):
        what = f"its env {env.prefix} has no bin/python that can be run."
        faults.append(Fault(run.name, what, "Make it again there, or debug its recipe."))
    needed = program or (Program(MODULE, (), "`debug --run`") if steps is not None else None)
    if needed and not (run.code / f"{needed.module.replace('.', '/')}.py").is_file():
        what = f"was submitted by an hpcft that had no {needed.verb}."
        faults.append(Fault(run.name, what, "" if program else "Leave out --run, or debug its recipe."))
    if cluster.kind == "slurm" and not slurm.available():
        faults.append(Fault(f"cluster {cluster.name}", "srun is not on PATH.", "Call this on a login node there."))
    if faults:
        raise UserError(faults)
    recipe = on_one_node(run.recipe, alone=steps is not None)
    return Session(run.name, recipe, cluster, env, run.code, steps, walltime, run, program)


def on_one_node(recipe: Recipe, *, alone: bool) -> Recipe:
    """The recipe for one node; `alone`: for one process too, which loads its rows itself, so that `breakpoint()` works
    in all of it."""
    resources = recipe.resources.model_copy(update={"nodes": 1})
    if not alone:
        return recipe.model_copy(update={"resources": resources})
    resources = resources.model_copy(update={"gpus": min(1, resources.gpus), "processes": None})
    data = recipe.data.model_copy(update={"workers": 0})
    return recipe.model_copy(update={"resources": resources, "data": data})


def recipe_values(session: Session) -> dict[str, Any]:
    """The recipe as the session's code reads it: of a run, with the keys that are in its own, which may be older."""
    now = session.recipe.model_dump(mode="json")
    if session.run is None:
        return now
    values: dict[str, Any] = json.loads((session.run.path / "recipe.json").read_bytes())
    for section in ("resources", "data"):
        values[section] = {key: now[section].get(key, old) for key, old in values.get(section, {}).items()}
    return values


def script(session: Session, folder: Path) -> str:
    """What bash reads: the setup of the job, and a prompt that says where it is, or the python of the first steps."""
    variables = worker_variables(session.recipe.resources.cpus_per_process or 1, session.cluster.internet)
    if session.run:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"  # the run's own code is as it was
    lines = (
        *session.cluster.setup,
        *session.env.setup(),
        *code_setup(session.code or folder / "code"),
        "export " + " ".join(f"{key}={value}" for key, value in variables.items()),
        *(f"export {key}={shlex.quote(value)}" for key, value in hub_variables(session.cluster).items()),
        LEAK,
    )
    if session.program:
        words = [str(session.env.python), "-m", session.program.module, str(folder), *session.program.words]
        lines = (*lines, "exec " + shlex.join(words))
    elif session.steps is None:
        here = f"PS1='[hpcft {session.name} on \\h] \\w\\$ '"
        lines = ("[ -r ~/.bashrc ] && . ~/.bashrc", *lines, here)
        if session.code:  # bash has read it whole before its first line runs, and nobody needs the folder any more
            lines = (f"rm -rf {shlex.quote(str(folder))} 2> /dev/null", *lines)
    else:
        words = [str(session.env.python), "-m", MODULE, str(folder), str(session.steps)]
        lines = (*lines, "exec " + shlex.join([*words, *([str(session.run.path)] if session.run else [])]))
    return "\n".join(lines) + "\n"


def command(session: Session, folder: Path) -> list[str]:
    """The command that has the terminal: srun on a cluster, bash itself on this machine."""
    file = str(folder / "script.sh")
    shell = session.steps is None and session.program is None
    bash = ["bash", "--rcfile", file, "-i"] if shell else ["bash", file]
    if session.cluster.kind == "local":
        return bash
    options = {**slurm_options(session.recipe, session.cluster), "time": session.walltime or SHORT}
    if session.walltime is None:
        options |= session.cluster.debug_options
    pty = [] if session.program else ["--pty"]
    return ["srun", *flags(options), f"--job-name=hpcft-debug-{session.name}", *pty, *bash]


def describe(session: Session) -> str:
    """The whole of it as text, for `--dry-run`."""
    folder = Path("FOLDER")
    parts = [shlex.join(command(session, folder)), "", "# FOLDER/script.sh", script(session, folder)]
    if session.steps is not None or session.program:
        parts += ["# FOLDER/recipe.json", json.dumps(recipe_values(session), indent=1)]
    return "\n".join(parts)


def start(session: Session, root: Path) -> int:
    """The exit code of the shell or of the first steps; all that they needed on disk is gone then."""
    make_root(root)  # the folder must be where the compute node sees it
    _clear_left_behind(root)
    folder = Path(tempfile.mkdtemp(prefix=".debug-", dir=root))
    lock = Lock(folder / "lock")
    lock.take()
    try:
        (folder / "script.sh").write_text(script(session, folder))
        write_json(folder / "recipe.json", recipe_values(session))
        (folder / "jobs" / "001").mkdir(parents=True)
        # Not the folder above it: in an env that is all of its packages, before those of the env of the jobs.
        (folder / "code").mkdir()
        (folder / "code" / "hpcft").symlink_to(Path(hpcft.__file__).parent)
        with slurm.scrubbed_environment():
            return _call(command(session, folder))
    finally:
        lock.drop()  # first: NFS keeps a removed file that is open
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left_behind(root: Path) -> None:
    """Remove the folders of sessions that were killed, but none that is being made at this moment."""
    for path in root.glob(".debug-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < FRESH:
                continue
            with locked(path / "lock") as mine:
                if mine:
                    shutil.rmtree(path, ignore_errors=True)


def _call(words: list[str]) -> int:
    """The exit code of a command that has the terminal."""
    process = subprocess.Popen(words)
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # it is for those in the terminal
    for number in (signal.SIGHUP, signal.SIGTERM):
        before[number] = signal.signal(number, _leave)
    try:
        return process.wait()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(FAREWELL)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)
