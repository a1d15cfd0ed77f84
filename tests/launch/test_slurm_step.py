"""A step of a job: the one srun through which a supervisor holds the other nodes."""

from __future__ import annotations

import pytest

from hpcft.launch.slurm_step import on_other_nodes

BARE = [
    "srun",
    "--overlap",
    "--quiet",
    "--cpu-bind=none",
    "--export=ALL",
    "--kill-on-bad-exit=1",
    "--mpi=none",
    "--nodes=3",
    "--ntasks=3",
    "--ntasks-per-node=1",
    "--relative=1",
]


def test_one_process_runs_on_each_node_but_the_first() -> None:
    assert on_other_nodes(3, ["python", "a b"], {"SLURM_NTASKS": "4"}) == [*BARE, "python", "a b"]


@pytest.mark.parametrize(
    ("variables", "option"),
    [
        ({"SLURM_CPUS_PER_TASK": "12"}, "--cpus-per-task=12"),
        ({"SLURM_GPUS": "8"}, "--gpus=6"),
        ({"SLURM_GPUS": "v100-32:8"}, "--gpus=v100-32:6"),
    ],
)
def test_what_srun_does_not_take_from_the_job_is_said_again(variables: dict[str, str], option: str) -> None:
    assert sorted(on_other_nodes(3, [], variables)) == sorted([*BARE, option])


def test_a_step_of_whole_nodes_asks_for_the_gpus_that_slurm_counts_there() -> None:
    here = {"SLURM_GPUS_ON_NODE": "4"}
    assert sorted(on_other_nodes(3, [], here, whole_nodes=True)) == sorted([*BARE, "--gres=gpu:4"])
    assert on_other_nodes(3, [], here) == on_other_nodes(3, [], {}, whole_nodes=True) == BARE
