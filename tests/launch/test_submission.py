"""A submission is data: what one job asks for, equal when it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.submission import Submission, job_walltime, make_submission, slurm_options
from hpcft.recipe import Data, Model, Recipe, Resources
from hpcft.rundir import RunDir

CLUSTER = Cluster(
    name="site",
    kind="slurm",
    runs="/runs",
    partition="GPU",
    account="lab",
    qos="normal",
    constraint="v100",
    gpu_request="gpus-per-node={gpus}",
    cpus_per_gpu=6,
    memory_per_gpu="60G",
    max_walltime="2:00:00",
    setup=("module load cuda",),
    options={"exclude": "gpu004"},
)
ENV = Env(Path("/env"))


def recipe(**resources: object) -> Recipe:
    model, data = Model(path="gpt2"), Data(train="/t.jsonl")
    return Recipe(name="demo", task="corpus", model=model, data=data, resources=Resources(**resources))  # type: ignore[arg-type]


def test_a_job_is_made_of_recipe_cluster_and_env_and_nothing_else() -> None:
    run = RunDir(Path("/runs/demo"))
    assert make_submission(run, 3, ("11", "12"), recipe(gpus=2), CLUSTER, ENV) == Submission(
        run=Path("/runs/demo"),
        number=3,
        after=("11", "12"),
        python=Path("/env/bin/python"),
        setup=(
            "module load cuda",
            "unset PYTHONHOME PYTHONSTARTUP",
            "export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1",
            "export PATH=/env/bin:$PATH",
            "export VIRTUAL_ENV=/env",
            "export PYTHONPATH=/runs/demo/code PYTHONSAFEPATH=1",
        ),
        options=(
            ("account", "lab"),
            ("constraint", "v100"),
            ("cpus-per-task", "12"),
            ("exclude", "gpu004"),
            ("gpus-per-node", "2"),
            ("mem-per-gpu", "60G"),
            ("nodes", "1"),
            ("ntasks", "1"),
            ("partition", "GPU"),
            ("qos", "normal"),
        ),
        walltime=7200,
    )


def test_a_job_without_gpus_asks_for_none_and_for_the_cores_of_its_processes() -> None:
    options = slurm_options(recipe(gpus=0, processes=3, cpus_per_process=2, memory="8G"), CLUSTER)
    assert (options["cpus-per-task"], options["mem"]) == ("6", "8G")
    assert not {"gpus-per-node", "mem-per-gpu"} & set(options)


def test_what_the_recipe_says_goes_before_the_cluster_and_the_clusters_raw_options_before_all() -> None:
    site = CLUSTER.model_copy(update={"options": {"mem": "0", "partition": "DEV"}})
    options = slurm_options(recipe(gpus=1, cpus_per_process=9, memory="8G"), site)
    assert (options["cpus-per-task"], options["mem"], options["partition"]) == ("9", "0", "DEV")
    assert "mem-per-gpu" not in options


@pytest.mark.parametrize(
    ("asked", "kind", "seconds"),
    [
        (None, "slurm", 7200),
        ("0:40", "slurm", 60),
        ("0:40", "local", 40),
        ("1:01", "slurm", 120),
        ("1:00", "slurm", 60),
    ],
)
def test_a_walltime_is_in_whole_minutes_where_slurm_counts_them(asked: str | None, kind: str, seconds: int) -> None:
    assert job_walltime(recipe(walltime=asked), CLUSTER.model_copy(update={"kind": kind})) == seconds


def test_a_job_is_named_and_marked_as_its_runs_and_signalled_before_its_end() -> None:
    long = make_submission(RunDir(Path("/r/demo-2")), 7, (), recipe(), CLUSTER, ENV)
    short = make_submission(RunDir(Path("/r/demo-2")), 7, (), recipe(walltime="1:00"), CLUSTER, ENV)
    assert (long.job_name, long.comment) == ("hpcft-demo-2-007", "hpcft:/r/demo-2:7")
    assert long.folder == Path("/r/demo-2/jobs/007")
    assert (long.signal_lead, short.signal_lead) == (180, 20)
