"""`hpcft debug` as data: what it asks Slurm for, what bash and the first steps read, and what it clears away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import hpcft
from hpcft.disk import Lock, read_json, write_json
from hpcft.launch import debug
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.debug import Session, on_one_node
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Data, Model, Resources

CLUSTER = Cluster(
    name="site", kind="slurm", runs="/runs", gpu_request="gres=gpu:{gpus}", cpus_per_gpu=6, setup=("module load cuda",)
)
RESOURCES = Resources(nodes=3, gpus=2, walltime="2:00:00")
RECIPE = Recipe(name="demo", task="corpus", model=Model(path="m"), data=Data(train="/t.jsonl"), resources=RESOURCES)


def session(steps: int | None, run: RunDir | None = None) -> Session:
    recipe = on_one_node(RECIPE, alone=steps is not None)
    return Session("demo", recipe, CLUSTER, Env(Path("/env")), Path("/a code"), steps, None, run)


def test_a_shell_has_a_whole_node_and_first_steps_have_one_process_of_it() -> None:
    shell = debug.command(session(None), Path("/f"))
    assert shell[:6] == ["srun", "--cpus-per-task=12", "--gres=gpu:2", "--nodes=1", "--ntasks=1", "--time=0:30:00"]
    assert shell[6:] == ["--job-name=hpcft-debug-demo", "--pty", "bash", "--rcfile", "/f/script.sh", "-i"]
    steps = debug.command(session(4), Path("/f"))
    assert steps[1:3] == ["--cpus-per-task=6", "--gres=gpu:1"] and steps[-2:] == ["bash", "/f/script.sh"]
    assert session(4).recipe.processes == 1 and session(4).recipe.data.workers == 0


def test_the_script_of_first_steps_ends_in_their_python_and_quotes_what_it_names() -> None:
    lines = debug.script(session(4), Path("/a folder")).splitlines()
    assert lines[0] == "module load cuda"
    assert "export PYTHONPATH='/a code' PYTHONSAFEPATH=1" in lines
    assert lines[-1] == "exec /env/bin/python -m hpcft.train.debug '/a folder' 4"
    of_run = debug.script(session(4, RunDir(Path("/r/x"))), Path("/f"))
    assert of_run.endswith("hpcft.train.debug /f 4 /r/x\n") and "PYTHONDONTWRITEBYTECODE=1" in of_run


def test_a_run_of_another_version_reads_no_key_that_it_does_not_know_and_keeps_its_own(tmp_path: Path) -> None:
    old = {**RECIPE.model_dump(mode="json"), "resources": {"gpus": 2, "walltime": "2:00:00", "partition_of_old": "x"}}
    write_json(tmp_path / "recipe.json", old)
    values = debug.recipe_values(session(4, RunDir(tmp_path)))
    assert values["resources"] == {"gpus": 1, "walltime": "2:00:00", "partition_of_old": "x"}
    assert values["data"] == {**old["data"], "workers": 0}
    assert read_json(tmp_path / "recipe.json") == old


def test_what_a_killed_session_left_is_cleared_and_what_another_uses_is_not(tmp_path: Path) -> None:
    for name in (".debug-left", ".debug-used", ".debug-new", "run"):
        (tmp_path / name).mkdir()
        hour_ago = time.time() - 3600
        os.utime(tmp_path / name, (hour_ago, time.time() if name == ".debug-new" else hour_ago))
    lock = Lock(tmp_path / ".debug-used" / "lock")
    assert lock.take()
    os.utime(tmp_path / ".debug-used", (hour_ago, hour_ago))
    debug._clear_left_behind(tmp_path)
    lock.drop()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".debug-new", ".debug-used", "run"]


def test_a_recipes_session_gets_hpcft_and_no_package_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "ours"  # as pip installs hpcft: beside all other packages
    (ours / "numpy").mkdir(parents=True)
    (ours / "hpcft").symlink_to(Path(hpcft.__file__).parent)
    monkeypatch.setattr(hpcft, "__file__", str(ours / "hpcft/__init__.py"))
    python = tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nls "$PYTHONPATH" "$PYTHONPATH/hpcft/__init__.py" > {tmp_path}/seen\nexit 7\n')
    python.chmod(0o755)
    cluster = Cluster(name="local", kind="local", runs=str(tmp_path / "runs"))
    here = Session("demo", on_one_node(RECIPE, alone=True), cluster, Env(tmp_path / "env"), None, 1)
    assert debug.start(here, tmp_path / "runs") == 7
    first, _, *folder = (tmp_path / "seen").read_text().splitlines()
    assert first.endswith("/code/hpcft/__init__.py") and folder[1:] == ["hpcft"]
    assert list((tmp_path / "runs").iterdir()) == [] and (ours / "hpcft/__init__.py").exists()
    assert "export PYTHONPATH=FOLDER/code PYTHONSAFEPATH=1\n" in debug.describe(here)
    shell = debug.script(Session("demo", RECIPE, cluster, Env(tmp_path / "env"), None), Path("/f"))
    assert "rm -rf" not in shell, "the shell needs its code"
