"""Environments: which python a job runs, and the shell lines that make the rest of the env felt."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.schema import expand

NEEDED = ("submitit", "pydantic", "yaml")


@dataclass(frozen=True)
class Env:
    """A conda environment, or a venv, by its prefix."""

    prefix: Path

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
            f"export CONDA_PREFIX={prefix} CONDA_DEFAULT_ENV={shlex.quote(self.prefix.name)}",
            f'for script in {prefix}/etc/conda/activate.d/*.sh; do [ -r "$script" ] && . "$script"; done',
        )


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


def lacking(env: Env) -> list[str]:
    """Packages that the batch process imports before it can say anything, and that this env has not."""
    if env.prefix == Path(sys.prefix):
        return []
    code = f"import importlib.util as u; print(*[n for n in {NEEDED!r} if u.find_spec(n) is None])"
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([env.python, "-c", code], capture_output=True, text=True, env=variables)
    return done.stdout.split() if done.returncode == 0 else list(NEEDED)


def find_env(name: str | None, where: str) -> Env:
    """The env of this name or prefix; the one that runs this command for None. Raises UserError if there is none."""
    if name is None:
        return Env(Path(sys.prefix))
    known = named_envs()
    candidates = [expand(name).absolute()] if "/" in name else known.get(name, [])
    for prefix in candidates:
        if os.access(prefix / "bin" / "python", os.X_OK):
            return Env(prefix)
    prefixes = "Write its prefix, as `conda env list` shows it."
    if candidates:
        what = f"{candidates[0]} has no bin/python that can be run."
        raise UserError(Fault(where, f'env = "{name}": {what}', prefixes))
    fix = did_you_mean(name, list(known)) if known else prefixes
    raise UserError(Fault(where, f'env = "{name}": conda knows no environment of this name.', fix))


def named_envs() -> dict[str, list[Path]]:
    """Prefixes by name, from where conda itself looks; conda is not started, which would take a second."""
    prefixes: list[Path] = []
    registry = Path.home() / ".conda" / "environments.txt"
    if registry.is_file():
        prefixes += [Path(line) for line in registry.read_text().splitlines() if line.strip()]
    folders = [Path(text) for text in os.environ.get("CONDA_ENVS_PATH", "").split(os.pathsep) if text]
    folders += [Path(text) for text in os.environ.get("CONDA_ENVS_DIRS", "").split(os.pathsep) if text]
    if executable := os.environ.get("CONDA_EXE"):
        folders.append(Path(executable).parent.parent / "envs")
    for folder in folders:
        prefixes += sorted(folder.iterdir()) if folder.is_dir() else []
    found: dict[str, list[Path]] = {"base": [Path(executable).parent.parent]} if executable else {}
    for prefix in prefixes:
        if prefix.is_dir() and prefix not in (same := found.setdefault(prefix.name, [])):
            same.append(prefix)
    return {name: paths for name, paths in found.items() if paths}
