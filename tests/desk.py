"""A login node for tests: a folder with a good recipe and all that it names, and the `hpcft` command beside it."""

from __future__ import annotations

import atexit
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from hpcft.cli import main
from tests.standins import make_venv, put_torch

RECIPE = """\
name: demo
task: instruct
cluster: ./site.yaml
model:
  path: model
data:
  train: train.jsonl
  template: prompt.md
train:
  steps: 10
resources:
  gpus: 1
"""
CLUSTER = """\
kind: slurm
runs: {folder}/runs
partition: GPU
gpus_per_node: 2
gpu: V100
bf16: false
gpu_request: gres=gpu:V100:{{gpus}}
cpus_per_gpu: 6
memory_per_gpu: 60G
max_walltime: 2:00:00
max_submit: 20
"""
HERE = """\
kind: local
runs: {folder}/runs
"""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Desk:
    """The folder, which is the current one, and what can be done there."""

    folder: Path
    patch: pytest.MonkeyPatch

    def write(self, name: str, text: str | bytes) -> Path:
        """A file of the folder, made or replaced."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def change(self, old: str, new: str, name: str = "demo.yaml") -> None:
        """Replace a piece of a file, which must be there once."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, (old, text)
        self.write(name, text.replace(old, new))

    def env(self, name: str) -> Path:
        """A virtual environment in the folder, in which a recipe can train."""
        path = self.write(f"{name}/bin/python", f'#!/bin/sh\nexec {own_env()}/bin/python "$@"\n')
        path.chmod(0o755)
        return path.parent.parent

    def program(self, name: str, script: str = "exit 1") -> None:
        """A program of this name on PATH, which runs these shell lines."""
        path = self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def tree(self) -> dict[str, bytes | None]:
        """Everything below the folder, with contents."""
        paths = sorted(self.folder.rglob("*"))
        return {str(path.relative_to(self.folder)): None if path.is_dir() else path.read_bytes() for path in paths}

    def run(self, *arguments: str) -> Answer:
        """`hpcft ARGUMENTS`; the folder is left out of what it says."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        self.patch.setattr(sys, "argv", ["hpcft", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        texts = (stream.getvalue().replace(f"{self.folder}/", "") for stream in (out, err))
        return Answer(code, *texts)

    def faults(self, *arguments: str, verb: str = "submit", recipe: str = "demo.yaml") -> list[str]:
        """The faults that a submit is refused for: exit code 2, nothing on stdout, nothing changed on disk."""
        before = self.tree()
        answer = self.run(verb, recipe, *arguments)
        assert (answer.code, answer.out) == (2, ""), answer
        assert self.tree() == before
        lines = answer.err.splitlines()
        assert all(line.startswith("hpcft: ") for line in lines), answer.err
        return [line.removeprefix("hpcft: ") for line in lines]

    def accepts(self, *arguments: str) -> str:
        """What a dry run prints; it is taken, and nothing changes on disk."""
        before = self.tree()
        answer = self.run("submit", "demo.yaml", "--dry-run", *arguments)
        assert (answer.code, answer.err) == (0, ""), answer
        assert self.tree() == before
        return answer.out


@cache
def own_env() -> Path:
    """The env from which a desk submits: all that these tests run on, and a torch for its V100s."""
    folder = tempfile.TemporaryDirectory(prefix="hpcft-desk-")
    atexit.register(folder.cleanup)
    prefix = make_venv(Path(folder.name).resolve() / "env")
    put_torch(prefix, "2.10.0+cu128", "12.8", "sm_70 sm_75 sm_80")
    return prefix


def make_desk(folder: Path, patch: pytest.MonkeyPatch) -> Desk:
    """A desk with a recipe that can be submitted, if only `sbatch` were a real one."""
    desk = Desk(folder.resolve(), patch)
    desk.write("demo.yaml", RECIPE)
    desk.write("train.jsonl", '{"text": "good day", "label": "glad"}\n')
    desk.write("prompt.md", "Tweet: {{text}}\nMood: {{label}}\n")
    desk.write("model/config.json", "{}")
    desk.write("site.yaml", CLUSTER.format(folder=desk.folder))
    desk.write("here.yaml", HERE.format(folder=desk.folder))
    desk.program("sbatch")
    (desk.folder / "home").mkdir()
    folders = ("HPCFT_RUNS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "CONDA_ENVS_PATH", "CONDA_ENVS_DIRS")
    for name in (*folders, "CONDA_EXE", "MAMBA_EXE", "MAMBA_ROOT_PREFIX", "CONDA_PREFIX"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(desk.folder / "home"))
    patch.setenv("PATH", str(desk.folder / "bin"))
    patch.setattr(sys, "prefix", str(own_env()))
    patch.chdir(desk.folder)
    return desk
