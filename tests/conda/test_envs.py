"""Environments with a real conda: made, killed and made again, felt as an activated one, tried and written down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcft.launch.condaenv import Env, marker
from tests.conda.root import conda_root
from tests.slurm.processes import eventually
from tests.standins import PACKAGES

TINY = """\
name: tiny
channels: [{channel}, nodefaults]
dependencies:
  - python=3.11
  - felt
  - ours
  - pip: [toolz]
"""
SITE = """\
kind: local
runs: {folder}/runs
envs: {folder}/envs
"""


@dataclass(frozen=True)
class Node:
    """A login node with conda: a home, a cluster file, and tiny.yml."""

    folder: Path
    conda: Path

    @property
    def prefix(self) -> Path:
        return self.folder / "envs/tiny"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a shell there, in which no env is active."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CONDA_", "MAMBA_", "XDG_"))}
        return {**kept, "HOME": str(self.folder / "home"), "CONDA_EXE": str(self.conda), "OMP_NUM_THREADS": "1"}

    def run(self, *command: object, code: int = 0) -> str:
        """What a command printed."""
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, cwd=self.folder)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stdout + done.stderr).replace(f"{self.folder}/", "")

    def hpcft(self, *arguments: object, code: int = 0) -> str:
        """What `hpcft env …` printed, on the cluster of this folder."""
        return self.run(sys.executable, "-m", "hpcft.cli", "env", *arguments, "--cluster", "./site.yaml", code=code)

    def killed(self, when: str, conda: Path | None = None) -> None:
        """Start a creation, and kill it with all its children as soon as this file is there."""
        variables = {**self.environment, "CONDA_EXE": str(conda or self.conda)}
        command = [sys.executable, "-m", "hpcft.cli", "env", "create", "tiny.yml", "--cluster", "./site.yaml"]
        silent = subprocess.DEVNULL
        process = subprocess.Popen(
            command, env=variables, cwd=self.folder, stdout=silent, stderr=silent, start_new_session=True
        )
        assert eventually(lambda: (self.folder / when).exists() or process.poll() is not None, seconds=60)
        assert process.poll() is None, "it was killed while at work"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_node(folder: Path) -> Node:
    conda, channel = conda_root()
    (folder / "home").mkdir(parents=True)
    (folder / "tiny.yml").write_text(TINY.format(channel=channel))
    (folder / "site.yaml").write_text(SITE.format(folder=folder))
    return Node(folder, conda)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node where tiny has been made."""
    node = make_node(tmp_path_factory.mktemp("node"))
    assert "the env envs/tiny is whole." in node.hpcft("create", "tiny.yml")
    yield node
    shutil.rmtree(node.folder)


def test_an_env_is_made_on_scratch_with_both_parts_and_hpcft(node: Node) -> None:
    code = "import hpcft, submitit, toolz; print(hpcft.__file__, toolz.__file__)"
    assert node.run(node.prefix / "bin/python", "-I", "-c", code).split() == [
        str(Path("envs/tiny") / PACKAGES / "hpcft/__init__.py"),
        str(Path("envs/tiny") / PACKAGES / "toolz/__init__.py"),
    ]
    assert str(node.prefix) in (node.folder / "home/.conda/environments.txt").read_text()  # conda knows it
    assert "felt" in node.run(node.conda, "list", "--prefix", node.prefix)
    script = node.prefix / "etc/conda/activate.d/felt.sh"
    kept = next((node.folder / "envs/.packages/conda").glob("felt-*/etc/conda/activate.d/felt.sh"))
    assert script.samefile(kept), "linked, not copied"
    assert not marker(node.prefix).exists() and not list(node.prefix.parent.glob(".hpcft-*"))


def test_what_is_there_is_neither_made_again_nor_overwritten(node: Node) -> None:
    assert node.hpcft("create", "tiny.yml").startswith("envs/tiny is whole already")
    other = (node.folder / "tiny.yml").read_text().replace("toolz", "cowsay")
    (node.folder / "other.yml").write_text(other)
    again = "Remove it with `rm -r envs/tiny`, or name another place with --prefix."
    said = node.hpcft("create", "other.yml", code=2)
    assert said == f"hpcft: other.yml: envs/tiny was made from another text of this file. {again}\n"
    (node.folder / "mine").mkdir()
    (node.folder / "mine/thesis.tex").touch()
    said = node.hpcft("create", "tiny.yml", "--prefix", "mine", code=2)
    assert said.startswith("hpcft: tiny.yml: mine is there, and hpcft has not made it.")


def test_a_creation_that_fails_says_so_and_is_no_env(node: Node) -> None:
    (node.folder / "bad.yml").write_text(
        "name: bad\nchannels: [nodefaults]\ndependencies: [python=3.11, no-such-package]\n"
    )
    said = node.hpcft("create", "bad.yml", code=2)
    assert "==> conda's 2 packages, with conda\n" in said
    assert said.splitlines()[-1] == (
        "hpcft: conda: failed with exit code 1, and envs/bad is not whole; its own words stand above. "
        "Run the same line again: it goes on where it was."
    )
    assert "env bad is not there yet" in node.hpcft("check", "bad.yml", code=2)


def test_a_creation_that_was_killed_is_no_env_until_it_has_been_run_again(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    slow = tmp_path / "conda"
    slow.write_text(f'#!/bin/sh\n"{node.conda}" "$@"\ntouch {tmp_path}/done\nsleep 60\n')
    slow.chmod(0o755)
    assert node.hpcft("check", "tiny.yml", code=2) == (
        'hpcft: hpcft env: env = "tiny.yml": its env tiny is not there yet. Run `hpcft env create tiny.yml`.\n'
    )
    node.killed("done", slow)  # conda had done its part, and nobody wrote that down
    unfinished = 'env = "tiny.yml": envs/tiny is not whole: `hpcft env create` has not come to its end.'
    assert node.hpcft("check", "tiny.yml", code=2) == f"hpcft: hpcft env: {unfinished} Run it again, and it goes on.\n"
    node.killed("envs/tiny/.hpcft.json")  # pip at work
    assert "is not whole" in node.hpcft("check", "tiny", code=2)
    said = node.hpcft("create", "tiny.yml")
    assert "conda's" not in said and "==> pip's 1 packages and hpcft, here" in said
    node.run(node.prefix / "bin/python", "-I", "-c", "import hpcft, toolz")
    assert not marker(node.prefix).exists()


def test_the_lines_of_a_job_set_what_conda_activate_sets(node: Node) -> None:
    hook = f". {node.conda.parent.parent}/etc/profile.d/conda.sh"
    show = 'echo "$FELT|$BEFORE|$CONDA_PREFIX|$CONDA_SHLVL|${PATH%%:*}|$(command -v python)"'
    real = node.run("bash", "-c", f"{hook}; conda activate {node.prefix}; {show}")
    lines = "\n".join(Env(node.prefix).setup())
    assert node.run("bash", "-c", f"set -eu; {lines}\n{show}; echo $-").startswith(real)
    assert "e" in node.run("bash", "-c", f"set -eu\n{lines}\necho $-") and "FELT" not in node.environment
    # What the env that was active when the job was submitted has set, its own scripts take back.
    outer = f"{hook}; conda activate {node.prefix}; LEFT=; {lines}\necho $FELT $LEFT ${{!CONDA_PREFIX_*}}"
    assert node.run("bash", "-c", outer).split() == ["envs/tiny", "envs/tiny"]


def test_a_lock_makes_the_same_env_again_and_shows_what_has_changed(node: Node) -> None:
    assert node.hpcft("lock", "tiny.yml") == "tiny.lock/conda.txt\ntiny.lock/pip.txt\n"
    again = node.folder / "again"
    node.run(node.conda, "create", "--yes", "--offline", "--prefix", again, "--file", "tiny.lock/conda.txt")
    explicit = [
        node.run(node.conda, "list", "--explicit", "--md5", "--prefix", prefix) for prefix in (node.prefix, again)
    ]
    urls = [[line for line in text.splitlines() if "://" in line] for text in explicit]
    assert urls[0] == urls[1] and len(urls[0]) == 3
    frozen = node.folder / "tiny.lock/pip.txt"
    node.run(sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "-r", frozen)
    assert "toolz==" in frozen.read_text() and "hpcft==" not in frozen.read_text()
    locked = next(line for line in frozen.read_text().splitlines() if line.startswith("toolz=="))
    frozen.write_text(frozen.read_text().replace(locked, "toolz==0.1"))
    said = node.hpcft("check", "tiny.yml")
    assert f"lock: toolz 0.1 -> {locked[7:]}. Make it anew, or `hpcft env lock" in said
    assert "transformers" in said and "imported in" in said
