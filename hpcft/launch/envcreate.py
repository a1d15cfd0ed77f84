"""`hpcft env create`: an env made from its file by whichever conda there is; killed, it goes on when run again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

import yaml

import hpcft
from hpcft.disk import locked, read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, conda_folders, marker
from hpcft.launch.envcheck import node_options
from hpcft.launch.envfile import EnvFile
from hpcft.launch.slurm_command import on_a_node, run_command
from hpcft.schema import walltime_seconds

TOOLS = ("conda", "mamba", "micromamba")
PYTHON = re.compile(r"(?:.*::)?python(?![\w-])")
"""Begins a dependency on python itself, perhaps after its channel."""
PIP_WALLTIME = "1:00:00"
"""Of the job in which the pip part is installed: torch and what it brings are gigabytes."""


@dataclass(frozen=True)
class Creation:
    """All that is needed to make one env."""

    file: EnvFile
    prefix: Path
    tool: Path
    cluster: Cluster
    cache: Path | None
    """Folder of downloaded packages; conda's and pip's own where the cluster names none."""

    @property
    def record(self) -> Path:
        """What the env was made from; written when conda's part is done."""
        return self.prefix / ".hpcft.json"  # not in conda-meta, where every .json is a package

    def variables(self) -> dict[str, str]:
        """For conda and pip. On one volume with the env, packages are linked and not copied."""
        more = {"PYTHONNOUSERSITE": "1", "PYTHONPATH": "", "CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true"}
        if self.cache is not None:
            more |= {"CONDA_PKGS_DIRS": str(self.cache / "conda"), "PIP_CACHE_DIR": str(self.cache / "pip")}
        return more


def plan_creation(file: EnvFile, cluster: Cluster, prefix: Path | None) -> Creation:
    """What will be done. Raises UserError: no python or conda, nowhere to make it, or another env stands there."""
    if not any(PYTHON.match(item.strip()) for item in file.conda):
        raise UserError(Fault(str(file.path), "names no python.", "Add `python=3.11` to its dependencies."))
    tool = find_tool()
    folder = cluster.folder("envs")
    cache = folder / ".packages" if folder and prefix is None else None
    if prefix is None:
        folder = folder or next(
            iter([*conda_folders(), *([tool.parent.parent / "envs"] if tool.name == "conda" else [])]), None
        )
        if folder is None:
            what = f"{cluster.name} names no folder of envs, and {tool.name} none either."
            raise UserError(Fault("--prefix", what, "Say where to make it: --prefix /scratch/you/envs/NAME."))
        prefix = folder / file.name
    creation = Creation(file, prefix.absolute(), tool, cluster, cache)
    if ":" in str(creation.prefix):
        what = f'{creation.prefix} has a ":" in its path, which divides the folders of PATH.'
        raise UserError(Fault(str(file.path), what, "Say another place: --prefix."))
    try:
        record = read_json(creation.record)
        foreign = record is None and not marker(creation.prefix).exists()
        foreign = foreign and creation.prefix.exists() and any(creation.prefix.iterdir())
    except OSError as error:  # a file, or a folder of somebody else
        reason = (error.strerror or str(error)).lower()
        raise UserError(Fault(str(prefix), f"cannot be made: {reason}.", "Say another place: --prefix.")) from None
    again = f"Remove it with `rm -r {shlex.quote(str(creation.prefix))}`, or name another place with --prefix."
    if foreign:
        raise UserError(Fault(str(file.path), f"{creation.prefix} is there, and hpcft has not made it.", again))
    if record is not None and record["fingerprint"] != file.fingerprint:
        raise UserError(Fault(str(file.path), f"{creation.prefix} was made from another text of this file.", again))
    return creation


def find_tool() -> Path:
    """conda, mamba or micromamba: the one that this shell was set up for, else the first on PATH."""
    for name in ("CONDA_EXE", "MAMBA_EXE"):
        if (path := os.environ.get(name)) and os.access(path, os.X_OK):
            return Path(path)
    for name in TOOLS:
        if found := shutil.which(name):
            return Path(found)
    fix = "Load the site's module of it, or install Miniforge: https://conda-forge.org/download."
    raise UserError(Fault("hpcft env create", f"none of {', '.join(TOOLS)} is on PATH.", fix))


def create(creation: Creation) -> Env:
    """The whole env. Raises UserError when a tool fails, whose own words have been seen by then.

    conda cannot move an env, so it is made in its final place, and a file beside it says that it is not whole yet.
    """
    prefix, note = creation.prefix, marker(creation.prefix)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(Fault(str(prefix), f"cannot be made: {reason}.", "Say another place: --prefix.")) from None
    if read_json(creation.record) is not None and not note.exists():
        print(f"{prefix} is whole already, made from {creation.file.path}")
        return Env(prefix, creation.file)
    with locked(note) as mine:
        if not mine:
            raise UserError(Fault(str(prefix), "another `hpcft env create` is at work on it.", "Wait for it."))
        if read_json(creation.record) is None:
            try:
                _conda_part(creation)
            except BaseException:
                if not prefix.exists():  # what stands there later is not ours, and must not be removed
                    note.unlink(missing_ok=True)
                raise
        _pip_part(creation)
        note.unlink()
    return Env(prefix, creation.file)


def _conda_part(creation: Creation) -> None:
    """Make the env with conda's packages; what a kill has left of it is removed first: it is ours."""
    file, prefix = creation.file, creation.prefix
    if prefix.exists():
        print(f"removing what an unfinished creation left in {prefix}", flush=True)
        shutil.rmtree(prefix)
    with tempfile.TemporaryDirectory(prefix="hpcft-env-") as folder:
        part = Path(folder) / "environment.yml"
        part.write_text(yaml.safe_dump({"channels": list(file.channels), "dependencies": list(file.conda)}))
        verb = ["create", "--yes"] if creation.tool.name == "micromamba" else ["env", "create"]
        command = [str(creation.tool), *verb, "--prefix", str(prefix), "--file", str(part)]
        _do(f"conda's {len(file.conda)} packages, with {creation.tool.name}", command, creation)
    write_json(creation.record, {"file": str(file.path.absolute()), "fingerprint": file.fingerprint})


def _pip_part(creation: Creation) -> None:
    """Install the pip part, and hpcft itself: jobs need what it needs. In a GPU job where the site asks for that."""
    prefix, cluster = creation.prefix, creation.cluster
    python = prefix / "bin" / "python"
    own = subprocess.run([str(python), "-I", "-c", "import pip"], capture_output=True).returncode == 0
    # Without a pip of its own, the one of the env that runs this command installs into it.
    pip = [str(python), "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", str(python)]
    with hpcft_source(prefix.parent) as source:
        command = pip_command(cluster, [*pip, "install", *creation.file.pip_arguments(), source])
        where = "here" if command[0] == pip[0] else "in a job on a GPU node"
        _do(f"pip's {len(creation.file.pip)} packages and hpcft, {where}", command, creation)


def pip_command(cluster: Cluster, command: list[str]) -> list[str]:
    """The command, in a job of its own where the cluster has pip run on its GPU nodes."""
    if cluster.kind == "local" or not cluster.pip_on_gpu_node:
        return command
    # Not with debug_options: their partition may end jobs before torch has been unpacked.
    walltime = min(PIP_WALLTIME, cluster.max_walltime or PIP_WALLTIME, key=walltime_seconds)
    return on_a_node({**node_options(cluster), "time": walltime}, "hpcft-env-create", command)


@contextmanager
def hpcft_source(folder: Path) -> Iterator[str]:
    """What pip installs as hpcft: this checkout, the one it was installed from, or the version in the registry.

    A checkout is copied into `folder` for as long as it takes, since pip builds inside of what it is given.
    """
    checkout = Path(hpcft.__file__).parent.parent
    if not (checkout / "setup.cfg").is_file():
        try:
            origin = json.loads(distribution("hpcft").read_text("direct_url.json") or "{}").get("url", "")
        except PackageNotFoundError:
            origin = ""
        checkout = Path(unquote(urlparse(origin).path)) if origin.startswith("file:") else Path()
        if not (checkout / "setup.cfg").is_file():
            yield str(checkout) if checkout.is_file() else f"hpcft=={hpcft.__version__}"
            return
    with tempfile.TemporaryDirectory(prefix=".hpcft-source-", dir=folder) as copy:
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(checkout / name, copy)
        shutil.copytree(checkout / "hpcft", Path(copy) / "hpcft", ignore=shutil.ignore_patterns("__pycache__"))
        yield copy


def _do(what: str, command: Sequence[str], creation: Creation) -> None:
    """Run a tool in the open: what it prints is the progress. Raises UserError if it fails."""
    print(f"==> {what}\n{shlex.join(command)}", flush=True)
    code = run_command(command, creation.file.path.absolute().parent, variables=creation.variables())[0]
    if code:
        what = f"failed with exit code {code}, and {creation.prefix} is not whole; its own words stand above."
        raise UserError(Fault(Path(command[0]).name, what, "Run the same line again: it goes on where it was."))
