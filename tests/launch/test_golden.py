"""The shipped cluster files: the script that each makes of one and the same recipe, compared whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.launch import local, slurm
from hpcft.launch.cluster import SHIPPED, Choice, read_cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.submission import make_submission
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Data, Model, Resources

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
RECIPE = Recipe(
    name="demo",
    task="corpus",
    model=Model(path="gpt2"),
    data=Data(train="/data/train.jsonl"),
    resources=Resources(gpus=2, walltime="1:30:00", account="def-someone"),
)


@pytest.mark.parametrize("name", NAMES)
def test_the_script_for_each_shipped_cluster_is_exactly_this(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # The folder of runs is all that a file takes from the machine it is read on.
    for key, value in {"WORK": "/lustre/work", "SCRATCH": "/scratch", "HOME": "/home/ada", "USER": "ada"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("GROUP", "lab")
    cluster = read_cluster(Choice(name, "here"))
    run = RunDir(Path("/runs/demo") if cluster.kind == "local" else cluster.runs_folder() / "demo")
    submission = make_submission(run, 2, ("4711",), RECIPE, cluster, Env(Path("/envs/ft")))
    text = local.script(submission) if cluster.kind == "local" else slurm.script(submission)
    assert text == (GOLDEN / f"{name}.sh").read_text()


def test_every_golden_script_belongs_to_a_shipped_cluster() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "local"])
def test_every_field_of_a_shipped_cluster_says_where_it_is_from(name: str) -> None:
    text = (SHIPPED / f"{name}.yaml").read_text()
    assert "Source" in text[: text.index("kind:")], "the head of the file names its sources"
