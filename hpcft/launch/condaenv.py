"""Environments: which python a job runs, and the shell lines that make the rest of the env felt."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.launch import envfacts
from hpcft.launch.envfile import EnvFile, is_env_file, read_env_file
from hpcft.schema import expand

PATIENCE = 120
"""Seconds for an env's python to read what is installed: a listing of a folder, on a busy file system."""
FLAGS = "hpcft_flags=$-; set +eu"
"""Scripts of packages read variables that are not set, and may end in a test that fails."""
FLAGS_BACK = "case $hpcft_flags in *e*) set -e;; esac; case $hpcft_flags in *u*) set -u;; esac; unset hpcft_flags"


@dataclass(frozen=True)
class Env:
    """A conda environment, or a venv, by its prefix."""

    prefix: Path
    file: EnvFile | None = None
    """What it was found by, where that was a file."""

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    @property
    def is_conda(self) -> bool:
        return (self.prefix / "conda-meta").is_dir()

    def setup(self) -> tuple[str, ...]:
        """Shell lines that activate it without conda: never `conda run`, which swallows signals and output."""
        prefix = shlex.quote(str(self.prefix))
        lines = [
            "unset PYTHONHOME PYTHONSTARTUP",
            # ~/.local comes before an env's own packages unless it is told not to (PEP 370).
            "export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1",
            f"export PATH={prefix}/bin:$PATH",
        ]
        if not self.is_conda:
            return (*lines, f"export VIRTUAL_ENV={prefix}")
        return (
            *lines,
            FLAGS,
            # sbatch hands on the variables of the env that was active: first its own scripts take back theirs.
            _source("$CONDA_PREFIX", "deactivate.d"),
            "unset VIRTUAL_ENV ${!CONDA_PREFIX_*}",
            f"export CONDA_PREFIX={prefix} CONDA_DEFAULT_ENV={shlex.quote(self.prefix.name)} CONDA_SHLVL=1",
            _source("$CONDA_PREFIX", "activate.d"),
            FLAGS_BACK,
        )


def _source(prefix: str, folder: str) -> str:
    """A line that runs an env's scripts as `conda activate` would, if it has any."""
    return f'for script in "{prefix}"/etc/conda/{folder}/*.sh; do [ -r "$script" ] && . "$script"; done'


def marker(prefix: Path) -> Path:
    """The file beside an env that stands there while `hpcft env create` has not come to its end."""
    return prefix.parent / f".{prefix.name}.unfinished"


def worker_variables(threads: int, internet: bool) -> dict[str, str]:
    """What every worker finds in its environment, and a debug shell too."""
    offline = {} if internet else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch refuses deterministic matrix products without it
        "NCCL_ALGO": "Ring",  # one order of summation in every job
        "NCCL_PROTO": "Simple",
        **offline,
    }


def read_facts(env: Env, arguments: tuple[str, ...], where: str) -> dict[str, Any]:
    """What `envfacts` says in this env: python, packages, torch's build, which of these modules it lacks.

    Raises UserError if its python does not run.
    """
    folders = env.prefix.glob("lib/python3*/site-packages")
    facts = _ask(env.python, arguments, tuple(folder.stat().st_mtime_ns for folder in folders))
    if isinstance(facts, str):
        raise UserError(Fault(where, f"{env.python} {facts}.", "Make the env anew."))
    return facts


@cache  # until something is installed there, so that asking twice costs one python
def _ask(python: Path, arguments: tuple[str, ...], installed: tuple[int, ...]) -> dict[str, Any] | str:
    """The facts, or what is wrong with this python."""
    # -I: as in a job, neither ~/.local nor PYTHONPATH counts.
    command = [str(python), "-I", envfacts.__file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        facts: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"is silent for {PATIENCE} s"
    except OSError as error:
        return f"does not start: {(error.strerror or str(error)).lower()}"
    except ValueError:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"does not work: {words[-1].strip()}"
    return facts


def find_env(name: str | None, where: str, folder: Path | None = None) -> Env:
    """The env of this name, prefix or file; the one that runs this command for None.

    `folder` is the cluster's for envs. Raises UserError if there is none, none that is whole, or none on a usable path.
    """
    if name is None:
        return _on_path(Env(Path(sys.prefix)), where)
    file = read_env_file(Path(name), where) if is_env_file(name) else None
    known = named_envs(folder)
    if file is not None:
        candidates = known.get(file.name, [])
    else:
        candidates = [expand(name).absolute()] if "/" in name else known.get(name, [])
    for prefix in candidates:
        if os.path.exists(marker(prefix)):  # noqa: PTH110 (Path's fails where we may not look)
            what = f"{prefix} is not whole: `hpcft env create` has not come to its end."
            raise UserError(Fault(where, f'env = "{name}": {what}', "Run it again, and it goes on."))
        if os.access(prefix / "bin" / "python", os.X_OK):
            return _on_path(Env(prefix, file), where)
    prefixes = "Write its prefix, as `conda env list` shows it."
    if file is not None:
        what = f"its env {file.name} is not there yet."
        raise UserError(Fault(where, f'env = "{name}": {what}', f"Run `hpcft env create {shlex.quote(name)}`."))
    if candidates:
        what = f"{candidates[0]} has no bin/python that can be run."
        raise UserError(Fault(where, f'env = "{name}": {what}', prefixes))
    fix = did_you_mean(name, list(known)) if known else prefixes
    raise UserError(Fault(where, f'env = "{name}": conda knows no environment of this name.', fix))


def _on_path(env: Env, where: str) -> Env:
    """The same env. Raises UserError where a job could not have it on its PATH."""
    if ":" in str(env.prefix):
        what = f'the env {env.prefix} has a ":" in its path, which divides the folders of PATH.'
        raise UserError(Fault(where, what, "Make it anew elsewhere: conda cannot move an env."))
    return env


def named_envs(own: Path | None = None) -> dict[str, list[Path]]:
    """Prefixes by name, from where conda itself looks; conda is not started, which would take a second.

    Those in the cluster's `own` folder come first.
    """
    registry = Path.home() / ".conda" / "environments.txt"
    try:
        lines = registry.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    prefixes = [Path(line) for line in lines if line.strip()]
    for folder in conda_folders():
        prefixes += _inside(folder)
    executable = os.environ.get("CONDA_EXE")
    found: dict[str, list[Path]] = {"base": [Path(executable).parent.parent]} if executable else {}
    for prefix in [*_inside(own), *prefixes]:
        if not os.path.isdir(prefix):  # noqa: PTH112 (Path's fails where we may not look)
            continue
        if prefix not in (same := found.setdefault(prefix.name, [])):
            same.append(prefix)
    return {name: paths for name, paths in found.items() if paths}


def _inside(folder: Path | None) -> list[Path]:
    """What may be envs in this folder; nothing where we may not look."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder else []
    except OSError:
        return []


def conda_folders() -> list[Path]:
    """Folders in which conda, mamba or micromamba keep environments by name, the user's first."""
    folders = [Path(text) for text in os.environ.get("CONDA_ENVS_PATH", "").split(os.pathsep) if text]
    folders += [Path(text) for text in os.environ.get("CONDA_ENVS_DIRS", "").split(os.pathsep) if text]
    if executable := os.environ.get("CONDA_EXE"):
        folders.append(Path(executable).parent.parent / "envs")
    if root := os.environ.get("MAMBA_ROOT_PREFIX"):
        folders.append(Path(root) / "envs")
    return folders
