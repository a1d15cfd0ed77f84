"""Clusters: found by name or path, each fault of their files with its line, and where their runs lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.errors import UserError
from hpcft.launch.cluster import Choice, Cluster, cluster_files, read_cluster
from tests.desk import Desk


def test_the_shipped_clusters_are_sound() -> None:
    clusters = [read_cluster(Choice(name, "here")) for name in ("local", "orfeo")]
    assert [(cluster.name, cluster.kind) for cluster in clusters] == [("local", "local"), ("orfeo", "slurm")]


def test_an_unknown_cluster_is_refused_with_the_nearest_or_all_that_are_known(desk: Desk) -> None:
    desk.change("cluster: ./site.yaml", "cluster: orfe")
    assert desk.faults() == ['demo.yaml:3: no cluster "orfe". Did you mean "orfeo"?']
    assert desk.faults("--cluster", "leonardo-booster") == [
        '--cluster: no cluster "leonardo-booster". Known here: local, orfeo.'
    ]


def test_a_cluster_of_the_user_wins_over_a_shipped_one(desk: Desk) -> None:
    mine = desk.write("home/.config/hpcft/clusters/local.yaml", "kind: local\nruns: /mine\n")
    other = desk.write("home/.config/hpcft/clusters/lab.yaml", "kind: local\nruns: /lab\n")
    assert [cluster_files()[name] for name in ("local", "lab")] == [mine, other]
    assert read_cluster(Choice("local", "here")).runs == "/mine"


def test_a_cluster_by_path_stands_beside_the_recipe_and_on_the_command_line_in_the_current_folder(desk: Desk) -> None:
    (desk.folder / "demo.yaml").rename(desk.write("jobs/demo.yaml", ""))
    desk.write("jobs/site.yaml", "kind: beside\nruns: x\n")
    desk.write("site.yaml", "kind: current\nruns: x\n")
    known = "is not known. Known here: local, slurm."
    assert desk.faults(recipe="jobs/demo.yaml")[0] == f'jobs/site.yaml:1: kind = "beside" {known}'
    assert (
        desk.faults("--cluster", "./site.yaml", recipe="jobs/demo.yaml")[0] == f'site.yaml:1: kind = "current" {known}'
    )


def test_a_cluster_file_that_cannot_be_read_is_refused(desk: Desk) -> None:
    known = "Clusters known by name: local, orfeo."
    assert desk.faults("--cluster", "./no.yaml") == [
        f"--cluster: no.yaml cannot be read: no such file or directory. {known}"
    ]
    assert desk.faults("--cluster", "~nosuchuser/c.yaml") == [
        f"--cluster: ~nosuchuser/c.yaml cannot be read: no such file or directory. {known}"
    ]
    desk.write("bad.yaml", b"kind: \xff")
    assert desk.faults("--cluster", "bad.yaml") == [f"--cluster: bad.yaml cannot be read: it is no UTF-8 text. {known}"]


def test_all_faults_of_a_cluster_file_have_its_lines(desk: Desk) -> None:
    desk.change("kind: slurm", "kind: slurmm", "site.yaml")
    desk.change("partition: GPU", "partitoin: GPU", "site.yaml")
    desk.change("max_submit: 20", "max_submit: none", "site.yaml")
    desk.change("gres=gpu:V100:{gpus}", "gpu:{gpu}", "site.yaml")
    desk.change("memory_per_gpu: 60G", "memory_per_gpu: 60", "site.yaml")
    assert desk.faults() == [
        'site.yaml:1: kind = "slurmm" is not known. Did you mean "slurm"?',
        'site.yaml:7: gpu_request = "gpu:{gpu}" is no sbatch option with {gpus} in it. Write it as '
        "`gres=gpu:V100:{gpus}`.",
        "site.yaml:9: memory_per_gpu = 60 is no text. Put it in quotes.",
        'site.yaml:11: max_submit = "none" is no whole number.',
        'site.yaml:3: unknown key "partitoin". Did you mean "partition"?',
    ]


def test_a_cluster_file_with_a_key_twice_is_refused(desk: Desk) -> None:
    desk.change("max_submit: 20", "kind: local", "site.yaml")
    assert desk.faults() == ['site.yaml:11: "kind" stands here and in line 1. Keep one.']


def test_the_runs_folder_fills_in_variables(desk: Desk) -> None:
    desk.patch.setenv("SCRATCH", "/scratch")
    desk.patch.setenv("USER", "ada")
    desk.patch.setenv("GROUP", "lab")
    assert Cluster(name="x", kind="local", runs="$SCRATCH/${GROUP}/$USER").runs_folder() == Path("/scratch/lab/ada")


def test_group_and_user_are_known_without_variables_as_in_a_cron_job(desk: Desk) -> None:
    for name in ("GROUP", "USER", "LOGNAME", "LNAME", "USERNAME"):
        desk.patch.delenv(name, raising=False)
    folder = str(Cluster(name="x", kind="local", runs="/s/$GROUP/$USER").runs_folder())
    assert folder.startswith("/s/")
    assert "$" not in folder
    assert folder.count("/") == 3


@pytest.mark.parametrize(
    ("runs", "problem"), [("/s/$NOSUCH/x", "$NOSUCH has no value here"), ("/s/$/x", "a $ stands alone in it")]
)
def test_a_runs_folder_with_a_variable_that_has_no_value_is_refused(desk: Desk, runs: str, problem: str) -> None:
    with pytest.raises(UserError) as refusal:
        Cluster(name="site", kind="local", runs=runs).runs_folder()
    assert str(refusal.value) == (f'cluster site: runs = "{runs}": {problem}. Name a folder with --runs or HPCFT_RUNS.')
