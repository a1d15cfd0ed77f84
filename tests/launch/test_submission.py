"""A submission is data: what one job asks for, equal when it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.submission import Submission, flags, gpu_options, job_walltime, make_submission, slurm_options
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Data, Model, Resources

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
    assert slurm_options(recipe(gpus=0, processes=3), CLUSTER)["cpus-per-task"] == "3", "a core for each"
    assert not {"gpus-per-node", "mem-per-gpu"} & set(options)


def test_what_the_recipe_says_goes_before_the_cluster_and_the_clusters_raw_options_before_all() -> None:
    site = CLUSTER.model_copy(update={"options": {"mem": "0", "cpus-per-task": "20"}})
    options = slurm_options(recipe(gpus=1, cpus_per_process=9, memory="8G"), site)
    assert (options["cpus-per-task"], options["mem"]) == ("20", "0")
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


def test_the_recipes_own_account_partition_qos_and_constraint_go_before_the_clusters() -> None:
    mine = {"account": "mine", "partition": "H100", "qos": "long", "constraint": "nvme"}
    options = slurm_options(recipe(gpus=1, **mine), CLUSTER)
    assert {key: options[key] for key in mine} == mine


def test_each_node_of_several_gets_its_share_and_one_task() -> None:
    options = slurm_options(recipe(nodes=3, gpus=2, memory="100G"), CLUSTER)
    assert (options["nodes"], options["ntasks-per-node"], "ntasks" in options) == ("3", "1", False)
    assert (options["gpus-per-node"], options["cpus-per-task"], options["mem"]) == ("2", "12", "100G")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("gres=gpu:V100:{gpus}", {"gres": "gpu:V100:2"}),
        ("gres=gpu:{gpus},nvme:100", {"gres": "gpu:2,nvme:100"}),
        ("gpus-per-node=a100:{gpus}", {"gpus-per-node": "a100:2"}),
        ("gpus-per-task={gpus}", {"gpus-per-task": "2"}),
        ("gpus=v100-32:{gpus}", {"gpus": "v100-32:6"}),
        ("whole-nodes", {}),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants_it(request_: str, expected: dict[str, str]) -> None:
    assert gpu_options(2, 3, CLUSTER.model_copy(update={"gpu_request": request_})) == expected
    assert gpu_options(0, 3, CLUSTER.model_copy(update={"gpu_request": request_})) == {}


@pytest.mark.parametrize(
    ("rule", "option"),
    [("memory_per_gpu", "mem-per-gpu"), ("memory_per_cpu", "mem-per-cpu"), ("memory_per_node", "mem")],
)
def test_the_memory_rule_of_the_site_holds_where_the_recipe_says_nothing(rule: str, option: str) -> None:
    site = CLUSTER.model_copy(update={"memory_per_gpu": None, rule: "7G"})
    options = slurm_options(recipe(gpus=1), site)
    assert {key: value for key, value in options.items() if key.startswith("mem")} == {option: "7G"}
    options = slurm_options(recipe(gpus=1, memory="9G"), site)
    assert {key: value for key, value in options.items() if key.startswith("mem")} == {"mem": "9G"}


def test_a_reservation_bad_nodes_and_the_right_to_be_queued_again_are_passed_on() -> None:
    site = CLUSTER.model_copy(
        update={"reservation": "course", "exclude": ("gpu003", "gpu[007-009]"), "preemption": "requeue", "options": {}}
    )
    options = dict(make_submission(RunDir(Path("/r/demo")), 1, (), recipe(), site, ENV).options)
    assert (options["reservation"], options["exclude"]) == ("course", "gpu003,gpu[007-009]")
    assert options["requeue"] == ""
    assert "requeue" not in slurm_options(recipe(), site)  # srun does not know it
    assert flags({"requeue": "", "mem": "9G"}) == ["--mem=9G", "--requeue"]


def test_the_default_walltime_is_the_shortest_limit_that_is_known() -> None:
    site = CLUSTER.model_copy(update={"partition_walltime": "1:00:00"})
    assert job_walltime(recipe(), site) == 3600
    assert job_walltime(recipe(partition="H100"), site) == 7200
    assert job_walltime(recipe(), site.model_copy(update={"max_walltime": None})) == 3600
