"""`hpcft env create` without a conda that works: what it refuses, and whose the folder is afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcft.launch.condaenv import marker
from tests.desk import Desk

FILE = "name: ft\ndependencies: [python=3.11, pip: [torch]]\n"
CREATE = ("env", "create", "ft.yml", "--cluster", "./here.yaml", "--prefix")


@pytest.fixture
def conda(desk: Desk) -> Path:
    """A conda that fails, as without a network, and leaves its prefix there if a file `partly` is."""
    desk.write("ft.yml", FILE)
    script = f"if [ -e {desk.folder}/partly ]; then /bin/mkdir -p {desk.folder}/mine/conda-meta; fi; exit 1"
    desk.program("conda", script)
    return desk.folder / "mine"


def test_an_env_that_the_user_made_after_a_failure_is_not_removed(desk: Desk, conda: Path) -> None:
    assert "conda: failed with exit code 1" in desk.run(*CREATE, "mine").err
    assert not marker(conda).exists()
    thesis = desk.write("mine/thesis.tex", "all of it")
    assert "mine is there, and hpcft has not made it." in desk.run(*CREATE, "mine").err
    assert thesis.read_text() == "all of it"


def test_what_conda_left_of_an_env_is_ours_and_removed(desk: Desk, conda: Path) -> None:
    desk.write("partly", "")
    assert desk.run(*CREATE, "mine").code == 2
    assert marker(conda).exists()
    assert "removing what an unfinished creation left in mine" in desk.run(*CREATE, "mine").out


def test_a_file_without_python_and_a_prefix_that_is_a_file_are_refused(desk: Desk, conda: Path) -> None:
    refused = "cannot be made: not a directory. Say another place: --prefix.\n"
    assert desk.run(*CREATE, "demo.yaml").err == f"hpcft: demo.yaml: {refused}"
    assert desk.run(*CREATE, "demo.yaml/env").err == f"hpcft: demo.yaml/env: {refused}"
    colon = 'a:b has a ":" in its path, which divides the folders of PATH.'
    assert desk.run(*CREATE, "a:b").err == f"hpcft: ft.yml: {colon} Say another place: --prefix.\n"
    without = "hpcft: ft.yml: names no python. Add `python=3.11` to its dependencies.\n"
    for dependencies in ("[{pip: [torch]}]", "[python-dateutil]", "[ipython]"):
        desk.write("ft.yml", f"name: ft\ndependencies: {dependencies}\n")
        assert desk.run(*CREATE, "mine").err == without
    for dependency in ("python", "python 3.11", "conda-forge::python>=3.11"):
        desk.write("ft.yml", f"name: ft\ndependencies: ['{dependency}']\n")
        assert "names no python" not in desk.run(*CREATE, "mine").err


def test_the_next_command_is_the_one_that_finds_what_was_made(desk: Desk, conda: Path) -> None:
    desk.change("runs:", f"envs: {desk.folder}/scratch\nruns:", "here.yaml")
    where = 'while [ "$1" != --prefix ]; do shift; done; /bin/mkdir -p $2/bin; /bin/cp '
    python = desk.write("python", "#!/bin/sh\nexit 0\n")  # its pip installs whatever it is told
    python.chmod(0o755)
    desk.program("conda", f"{where}{python} $2/bin/python")
    said = desk.run(*CREATE, "mine").out.splitlines()[-1]
    next_ = "Next: `hpcft env check {0} --cluster ./here.yaml`, and `env: {1}` in a recipe."
    prefix = f"{desk.folder}/mine"
    assert said.replace(prefix, "mine") == f"the env mine is whole. {next_.format('mine', 'mine')}"
    said = desk.run(*CREATE[:-1]).out.splitlines()[-1]
    assert said == f"the env scratch/ft is whole. {next_.format('ft.yml', 'ft.yml')}"


def test_a_lock_that_cannot_be_written_is_a_fault_and_a_record_of_a_check_is_not(desk: Desk) -> None:
    desk.write("file", "")
    lock = desk.run("env", "lock", sys.prefix, "--cluster", "./here.yaml", "--out", "file")
    assert lock.err == "hpcft: --out: file cannot be written: file exists. Name another folder.\n"
    answer = '{"host": "n1", "torch": null, "nvcc": null, "imports": {}}'
    facts = '{"python": "3.11.7", "packages": {}, "torch": null, "missing": []}'
    said = f"case $1 in -I) echo '{facts}';; *) echo 'HPCFT-PROBE {answer}';; esac"
    desk.write("env/bin/python", f"#!/bin/sh\n{said}\n").chmod(0o755)
    desk.patch.setenv("XDG_CACHE_HOME", str(desk.folder / "file"))
    desk.patch.setenv("PATH", f"{desk.folder}/bin:/usr/bin:/bin")
    check = desk.run("env", "check", "./env", "--cluster", "./here.yaml")
    assert (check.code, check.err) == (0, "")
