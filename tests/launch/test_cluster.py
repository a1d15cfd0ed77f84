"""Clusters: found by name or path, each fault of their files with its line, and where their runs lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.errors import UserError
from hpcft.launch.cluster import Choice, Cluster, cluster_files, read_cluster
from tests.desk import Desk

SHIPPED = "bridges-2, jean-zay-v100, leonardo, local, narval, orfeo, supercloud"


def test_the_shipped_clusters_are_sound(desk: Desk) -> None:
    assert ", ".join(sorted(cluster_files())) == SHIPPED
    clusters = [read_cluster(Choice(name, "here")) for name in cluster_files()]
    assert [cluster.name for cluster in clusters if cluster.kind == "local"] == ["local"]


def test_an_unknown_cluster_is_refused_with_the_nearest_or_all_that_are_known(desk: Desk) -> None:
    desk.change("cluster: ./site.yaml", "cluster: orfe")
    assert desk.faults() == ['demo.yaml:3: no cluster "orfe". Did you mean "orfeo"?']
    assert desk.faults("--cluster", "frontier") == [f'--cluster: no cluster "frontier". Known here: {SHIPPED}.']


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
    known = f"Clusters known by name: {SHIPPED}."
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


# --- a file that extends another ---


def test_a_file_of_three_lines_is_enough_where_another_says_the_rest(desk: Desk) -> None:
    desk.write("mine.yaml", "extends: ./site.yaml\naccount: lab-7\noptions: {mail-type: FAIL}\n")
    mine, site = (read_cluster(Choice(f"./{name}.yaml", "here")) for name in ("mine", "site"))
    assert mine == site.model_copy(update={"name": "mine", "account": "lab-7", "options": {"mail-type": "FAIL"}})


def test_the_users_own_file_of_a_shipped_ones_name_goes_on_from_the_shipped_one(desk: Desk) -> None:
    desk.write("home/.config/hpcft/clusters/leonardo.yaml", "extends: leonardo\naccount: lab-7\n")
    desk.write("home/.config/hpcft/clusters/quick.yaml", "extends: leonardo\nqos: boost_qos_dbg\n")
    found = read_cluster(Choice("quick", "here"))
    assert (found.name, found.account, found.qos) == ("quick", "lab-7", "boost_qos_dbg")
    assert (found.partition, found.account_needed) == ("boost_usr_prod", True)


def test_a_fault_of_the_other_file_has_that_ones_line_and_a_key_written_anew_is_none(desk: Desk) -> None:
    desk.change("partition: GPU", "partitoin: GPU", "site.yaml")
    desk.change("max_submit: 20", "max_submit: none", "site.yaml")
    desk.write("mine.yaml", "extends: ./site.yaml\nmax_submit: 5\nqos: a b\n")
    assert desk.faults("--cluster", "./mine.yaml") == [
        'mine.yaml:3: qos = "a b" is no name of Slurm\'s. '
        "It has letters, digits and _ . , @ + - only, a letter or digit first.",
        'site.yaml:3: unknown key "partitoin". Did you mean "partition"?',
    ]


def test_a_file_that_extends_nothing_known_or_itself_is_refused(desk: Desk) -> None:
    desk.write("mine.yaml", "account: lab\nextends: leonardi\n")
    assert desk.faults("--cluster", "./mine.yaml") == ['mine.yaml:2: no cluster "leonardi". Did you mean "leonardo"?']
    desk.write("mine.yaml", "account: lab\nextends: ./other.yaml\n")
    desk.write("other.yaml", "extends: ./mine.yaml\n")
    assert desk.faults("--cluster", "./mine.yaml") == [
        'other.yaml:1: extends = "./mine.yaml" is this file itself. Name another one.'
    ]


# --- what single keys do not show ---


def test_memory_by_two_rules_options_of_hpcfts_own_and_more_cores_than_a_node_has_are_refused(desk: Desk) -> None:
    desk.write(
        "home/.config/hpcft/clusters/bad.yaml",
        "extends: orfeo\nmemory_per_gpu: 60G\nmemory_per_node: 100G\ncpus_per_node: 24\ncpus_per_gpu: 13\n"
        "options:\n  nodes: '2'\n  output: /tmp/x\n  hint: nomultithread\n  exclude: gpu3\n  qos: long\n"
        "debug_options: {time: '0:10:00', ntasks: '2', qos: dev}\ntransfer_options: {job-name: x}\n",
    )
    file = "home/.config/hpcft/clusters/bad.yaml"
    assert desk.faults("--cluster", "bad") == [
        f"{file}:3: memory_per_gpu and memory_per_node are both given. Keep one of them.",
        f"{file}:7: options.nodes is set by hpcft itself. The recipe says `resources.nodes`.",
        f"{file}:8: options.output is set by hpcft itself. Remove it.",
        f"{file}:10: options.exclude is set by hpcft itself. Write `exclude: [...]`.",
        f"{file}:11: options.qos is set by hpcft itself. Write `qos: ...`, outside of options.",
        f"{file}:12: debug_options.ntasks is set by hpcft itself. Remove it.",
        f"{file}:13: transfer_options.job-name is set by hpcft itself. Remove it.",
        f"{file}:5: cpus_per_gpu = 13 makes 26 cores for 2 GPUs; a node has 24. Write 12 at most.",
    ]


def test_the_limit_of_a_job_is_the_shorter_one_and_that_of_another_partition_is_not_known() -> None:
    site = Cluster(name="x", kind="slurm", runs="/r", partition="GPU", partition_walltime="18:00:00")
    both = site.model_copy(update={"max_walltime": "1-00:00:00"})
    assert both.walltime_limits() == {"the partition GPU": "18:00:00", "your association": "1-00:00:00"}
    assert list(both.walltime_limits()) == ["the partition GPU", "your association"]
    assert both.walltime_limits("H100") == {"your association": "1-00:00:00"}


def test_a_qos_of_the_recipes_own_is_not_held_to_the_limits_of_the_files(desk: Desk) -> None:
    desk.change("max_walltime: 2:00:00", "qos: short\nmax_walltime: 2:00:00\npartition_walltime: 24:00:00", "site.yaml")
    long = ("--set", "resources.walltime=48:00:00")
    assert desk.faults(*long, "--set", "resources.qos=short") == [
        '--set resources.walltime: resources.walltime = "48:00:00": your association on site allows 2:00:00. '
        "The chain goes on past it by itself: write a walltime within it."
    ]
    desk.accepts(*long, "--set", "resources.qos=long")
    assert desk.faults("--set", "resources.qos=long") == [
        "demo.yaml:11: resources.walltime is missing, and what the qos long allows on site is not known. "
        'Write "2:00:00".'
    ]
