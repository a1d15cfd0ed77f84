"""Environments: found where conda keeps them, and felt by the shell as an activated one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hpcft.launch.condaenv import Env, find_env, named_envs
from tests.desk import Desk


def make_env(desk: Desk, name: str, *, conda: bool = False) -> Path:
    prefix = desk.env(name)
    if conda:
        desk.write(f"{name}/conda-meta/history", "")
    return prefix


def test_without_a_name_it_is_the_one_that_runs_this_command(desk: Desk) -> None:
    env = find_env(None, "demo.yaml:1")
    assert env.prefix == Path(sys.prefix)
    assert env.python.exists()


def test_a_name_is_looked_up_where_conda_keeps_environments(desk: Desk) -> None:
    listed, bundled, other = make_env(desk, "a/listed"), make_env(desk, "conda/envs/v100"), make_env(desk, "c/other")
    make_env(desk, "conda")
    desk.write("home/.conda/environments.txt", f"{listed}\n\n{desk.folder}/gone\n")
    desk.patch.setenv("CONDA_EXE", str(desk.folder / "conda/bin/conda"))
    desk.patch.setenv("CONDA_ENVS_PATH", str(desk.folder / "c"))
    found = {"listed": [listed], "v100": [bundled], "other": [other], "base": [desk.folder / "conda"]}
    assert named_envs() == found
    assert {name: [find_env(name, "x").prefix] for name in found} == found


def test_a_prefix_stands_beside_the_recipe_and_keeps_its_links(desk: Desk) -> None:
    make_env(desk, "real")
    (desk.folder / "env").symlink_to("real")
    assert f"export PATH={'env'}/bin:$PATH" in desk.accepts("--set", "env=./env")


def test_a_prefix_that_path_would_part_is_refused(desk: Desk) -> None:
    make_env(desk, "a:b")
    what = 'the env a:b has a ":" in its path, which divides the folders of PATH.'
    fix = "Make it anew elsewhere: conda cannot move an env."
    assert desk.faults("--set", "env=./a:b") == [f"--set env: {what} {fix}"]
    desk.patch.setattr("sys.prefix", str(desk.folder / "a:b"))
    assert desk.faults() == [f"demo.yaml:1: {what} {fix}"]


def test_an_unknown_env_is_refused_with_the_nearest_or_where_to_look(desk: Desk) -> None:
    unknown = "conda knows no environment of this name."
    assert desk.faults("--set", "env=v100") == [
        f'--set env: env = "v100": {unknown} Write its prefix, as `conda env list` shows it.'
    ]
    make_env(desk, "envs/v100-torch")
    desk.patch.setenv("CONDA_ENVS_DIRS", str(desk.folder / "envs"))
    assert desk.faults("--set", "env=v100-trch") == [
        f'--set env: env = "v100-trch": {unknown} Did you mean "v100-torch"?'
    ]


def test_a_prefix_without_a_python_that_runs_is_refused(desk: Desk) -> None:
    fault = "env has no bin/python that can be run. Write its prefix, as `conda env list` shows it."
    assert desk.faults("--set", "env=./env") == [
        f'--set env: env = "{desk.folder}/env": {fault}'.replace(f"{desk.folder}/", "")
    ]
    desk.write("env/bin/python", "")  # there, and not executable
    assert desk.faults("--set", "env=./env") == [f'--set env: env = "env": {fault}']


def test_the_setup_of_a_conda_env_makes_a_shell_see_what_activation_would_show(desk: Desk) -> None:
    prefix = make_env(desk, "my env", conda=True)
    desk.write("my env/etc/conda/activate.d/one.sh", "export ONE=1 SEEN=$CONDA_PREFIX\n")
    desk.write("my env/etc/conda/activate.d/two.sh", "export TWO=$ONE\n")
    lines = [
        *Env(prefix).setup(),
        'echo "$CONDA_PREFIX|$CONDA_DEFAULT_ENV|$SEEN|$TWO|$PYTHONNOUSERSITE|${PYTHONHOME-unset}|${PATH%%:*}"',
    ]
    shell = {"PATH": "/bin:/usr/bin", "PYTHONHOME": "/wrong"}
    said = subprocess.run(["/bin/bash", "-eu"], input="\n".join(lines), capture_output=True, text=True, env=shell)
    assert (said.stderr, said.stdout) == ("", f"{prefix}|my env|{prefix}|1|1|unset|{prefix}/bin\n")


def test_the_setup_of_a_conda_env_without_scripts_fails_nothing(desk: Desk) -> None:
    lines = [*Env(make_env(desk, "env", conda=True)).setup(), "echo on"]
    said = subprocess.run(["/bin/bash", "-eu"], input="\n".join(lines), capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "on\n")


def test_the_setup_of_a_virtual_env_says_that_it_is_one(desk: Desk) -> None:
    prefix = make_env(desk, "env")
    assert Env(prefix).setup() == (
        "unset PYTHONHOME PYTHONSTARTUP",
        "export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1",
        f"export PATH={prefix}/bin:$PATH",
        f"export VIRTUAL_ENV={prefix}",
    )


def test_a_list_of_envs_with_lines_that_cannot_be_looked_at_still_finds_the_others(desk: Desk) -> None:
    listed, endless = (
        make_env(desk, "a/listed"),
        f"/{'x' * 300}/env",
    )  # an OSError of stat, as a folder of somebody else
    desk.write("home/.conda/environments.txt", f"{endless}\n/caf".encode() + b"\xe9/env\n" + f"{listed}\n".encode())
    assert named_envs() == {"listed": [listed]}
    desk.write("file", "")
    assert named_envs(desk.folder / "file") == {"listed": [listed]}
    assert "has no bin/python that can be run" in desk.faults("--set", f"env={endless}")[0]
