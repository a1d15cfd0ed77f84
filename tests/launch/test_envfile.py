"""An env's file: what it asks for, and every fault in it with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.errors import UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.envcreate import pip_command
from hpcft.launch.envfile import read_env_file
from hpcft.launch.envlock import read_lock, write_lock
from tests.desk import Desk

ROOT = Path(__file__).parents[2]
FILE = """\
name: ft
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip:
      - torch==2.10.*
      - --extra-index-url "https://x/y z"
"""


@pytest.mark.parametrize("name", ["v100", "ampere", "cpu"])
def test_the_shipped_files_are_free_of_anacondas_channel_and_of_pythons_that_are_too_old(name: str) -> None:
    file = read_env_file(ROOT / "envs" / f"{name}.yml", "x")
    assert (file.name, file.channels, file.conda) == (name, ("conda-forge", "nodefaults"), ("python=3.11", "pip"))
    assert any(line.startswith("torch==") for line in file.pip)


def test_a_file_has_two_parts_and_pips_options_are_words_of_their_own(desk: Desk) -> None:
    file = read_env_file(desk.write("envs/ft.yml", FILE), "x")
    assert file.conda == ("python=3.11",)
    assert file.pip_arguments() == ["torch==2.10.*", "--extra-index-url", "https://x/y z"]
    assert file.lock == desk.folder / "envs/ft.lock"


def test_every_fault_of_a_file_is_said_with_its_line(desk: Desk) -> None:
    bad = 'name: a b\nchannels: conda-forge\ndependencies:\n  - 3.11\n  - pip: [--index-url "x]\n'
    path = desk.write("bad.yml", bad)
    with pytest.raises(UserError) as error:
        read_env_file(path, "x")
    dependency = "Write `name=version`, or a list below `pip:`."
    assert [str(fault).replace(f"{desk.folder}/", "") for fault in error.value.faults] == [
        'bad.yml:1: name = "a b" is no name of an env. Write letters, digits, dots, dashes and underscores.',
        "bad.yml:2: channels is no list of names. Write `channels: [conda-forge, nodefaults]`.",
        f"bad.yml:3: '3.11' is no dependency. {dependency}",
        "bad.yml:3: pip's line '--index-url \"x' has a quote that is not closed. Close it.",
    ]


def test_a_recipe_may_name_its_env_by_a_file_once_it_is_made(desk: Desk) -> None:
    desk.write("envs/ft.yml", FILE)
    desk.change("kind: slurm\n", f"kind: slurm\nenvs: {desk.folder}/scratch\n", "site.yaml")
    made = "Run `hpcft env create envs/ft.yml`."
    given = ("--set", "env=envs/ft.yml")
    assert desk.faults(*given) == [f'--set env: env = "envs/ft.yml": its env ft is not there yet. {made}']
    gone = "envs/no.yml cannot be read: no such file or directory. Name an env, or its YAML file."
    assert desk.faults("--set", "env=envs/no.yml") == [f"--set env: {gone}"]
    desk.env("scratch/ft")
    assert "# env          scratch/ft\n" in desk.accepts(*given)
    assert "# env          scratch/ft\n" in desk.accepts("--set", "env=ft"), "by its name too"
    desk.write("scratch/.ft.unfinished", "")
    unfinished = "scratch/ft is not whole: `hpcft env create` has not come to its end. Run it again, and it goes on."
    assert desk.faults(*given) == [f'--set env: env = "envs/ft.yml": {unfinished}']


def test_pip_runs_in_a_gpu_job_where_the_cluster_says_so() -> None:
    here = Cluster(name="c", kind="slurm", runs="/r", gpus_per_node=2, gpu_request="gres=gpu:{gpus}")
    assert pip_command(here, ["pip", "install", "x"]) == ["pip", "install", "x"]
    there = here.model_copy(update={"pip_on_gpu_node": True})
    assert pip_command(there, ["pip", "install", "x"]) == [
        *("srun", "--gres=gpu:1", "--nodes=1", "--ntasks=1", "--time=1:00:00", "--job-name=hpcft-env-create"),
        *("pip", "install", "x"),
    ]
    debug = there.model_copy(update={"debug_options": {"partition": "debug"}})
    assert pip_command(debug, ["pip"]) == pip_command(there, ["pip"]), "its partition has no hour for anyone"


def test_the_lock_keeps_where_pip_finds_packages_and_no_other_option(desk: Desk) -> None:
    more = "      - --find-links=/wheels --trusted-host y\n      - --no-deps\n      - --index-url /z --no-cache-dir\n"
    file = read_env_file(desk.write("envs/ft.yml", FILE + more), "x")
    facts = {"python": "3.11.7", "freeze": ["torch==2.13.0+cpu"]}
    write_lock(file.lock, desk.folder / "none", facts, file.indices)
    assert (file.lock / "pip.txt").read_text().splitlines()[1:] == [
        '--extra-index-url "https://x/y z"',
        "--find-links=/wheels --trusted-host y",
        "torch==2.13.0+cpu",
    ]
    assert read_lock(file.lock) == {"torch": "2.13.0+cpu"}
