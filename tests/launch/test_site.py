"""Cluster files against what Slurm says: recorded text, and every difference with its mend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcft.launch.cluster import Choice, Cluster, read_cluster_file
from hpcft.launch.draft import draft
from hpcft.launch.site import differences, gpu_kind, limits, unknown
from hpcft.launch.slurm_site import Association, Limits, Nodes, Partition, SiteFacts, read_partitions, read_site
from tests.desk import Desk

SINFO = """\
GPU*|18:00:00|OFF|3|24|250000|gpu:V100:2(S:0-1)|v100,nvme
GPU*|18:00:00|OFF|1|48|500000|gpu:V100:2,gpu:T4:1|v100
a word of the site's own
EPYC|6-06:00:00|REQUEUE|1K|128+|510000+|(null)|(null)
empty|infinite|OFF|0|0|0|(null)|(null)
"""
V100 = Nodes(3, 24, 250000, {"V100": 2}, frozenset({"v100", "nvme"}))
FACTS = SiteFacts(
    partitions={
        "GPU": Partition("GPU", True, 64800, "OFF", (V100,)),
        "EPYC": Partition("EPYC", False, None, "REQUEUE", (Nodes(8, 128, 510000, {}, frozenset()),)),
    },
    associations=(
        Association("dssc", "GPU", ("normal", "long"), "normal", Limits(7200, 20)),
        Association("dssc", "EPYC", ("normal",), "normal", Limits(None, 5)),
        Association("lade", "", ("normal",), "", Limits(518400, None)),
    ),
    qos={"normal": Limits(None, 12), "long": Limits(86400, None)},
    default_account="dssc",
)
TRUE = {"max_submit: 20": "max_submit: 12\npartition_walltime: 18:00:00"}
"""What makes the desk's cluster file agree with these facts."""


def test_sinfo_is_read_with_nodes_of_a_kind_together_and_hidden_partitions_too(desk: Desk) -> None:
    desk.write("sinfo.txt", SINFO)
    desk.program("sinfo", f'echo "$@" > {desk.folder}/calls; /bin/cat {desk.folder}/sinfo.txt')
    other = Nodes(1, 48, 500000, {"V100": 2, "T4": 1}, frozenset({"v100"}))
    assert read_partitions() == {
        "GPU": Partition("GPU", True, 64800, "OFF", (V100, other)),
        "EPYC": Partition("EPYC", False, 540000, "REQUEUE", (Nodes(1024, 128, 510000, {}, frozenset()),)),
        "empty": Partition("empty", False, None, "OFF", ()),
    }
    assert "--all" in (desk.folder / "calls").read_text()


def test_a_site_without_accounting_says_so_and_only_its_partitions_are_known(desk: Desk) -> None:
    desk.program("sinfo", "echo 'GPU*|18:00:00|OFF|3|24|250000|gpu:V100:2|v100,nvme'")
    desk.program("sacctmgr", "echo 'You are not running a supported accounting_storage plugin' >&2; exit 1")
    facts = read_site()
    assert facts == SiteFacts({"GPU": Partition("GPU", True, 64800, "OFF", (V100,))}, None, None, None)
    assert unknown(facts) == [
        "account, max_walltime and max_submit: this Slurm has no accounting that answers",
        "qos: this Slurm has no accounting that answers",
    ]
    assert unknown(replace(FACTS, associations=())) == [
        "account, max_walltime and max_submit: its accounts do not know you"
    ]


def said(desk: Desk, changes: dict[str, str], facts: SiteFacts = FACTS) -> list[str]:
    """The differences of the desk's cluster file after these changes, without the name of the file."""
    for old, new in (TRUE | changes).items():
        desk.change(old, new, "site.yaml")
    file = read_cluster_file(Choice("./site.yaml", "here"))
    return [str(fault).removeprefix("site.yaml:") for fault in differences(file, facts)]


def test_a_file_that_says_what_slurm_says_differs_in_nothing(desk: Desk) -> None:
    assert said(desk, {}) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "partition: GPU",
            "partition: GPUS",
            '3: partition = "GPUS": Slurm has no such partition. Did you mean "GPU"?',
        ),
        ("gpus_per_node: 2", "gpus_per_node: 4", "4: gpus_per_node = 4: the nodes of GPU have 2. Write 2."),
        (
            "gpu:V100:{gpus}",
            "gpu:v100:{gpus}",
            '7: gpu_request = "gres=gpu:v100:{gpus}": its nodes have no GPU of this type. Did you mean "V100"?',
        ),
        (
            "cpus_per_gpu: 6",
            "cpus_per_gpu: 13",
            "8: cpus_per_gpu = 13: a node has 24 cores for 2 GPUs. Write 12 at most.",
        ),
        ("60G", "125G", '9: memory_per_gpu = "125G": a node has 244G in all. Write "125000M" at most.'),
        (
            "max_walltime: 2:00:00",
            "max_walltime: 3:00:00",
            '10: max_walltime = "3:00:00": your association or qos allows 2:00:00. Write "2:00:00".',
        ),
        (
            "max_walltime: 2:00:00\n",
            "",
            '1: max_walltime is missing: your association or qos allows 2:00:00. Write "2:00:00".',
        ),
        ("gpu: V100", "gpu: V100\ncpus_per_node: 48", "6: cpus_per_node = 48: the nodes of GPU have 24. Write 24."),
        (
            "gpu: V100",
            "gpu: V100\nconstraint: v100&nvmee",
            '6: constraint = "v100&nvmee": no node there has the feature nvmee. Did you mean "nvme"?',
        ),
        (
            "gpu: V100",
            "gpu: V100\naccount: dsscc",
            '6: account = "dsscc": Slurm knows no such account of yours. Did you mean "dssc"?',
        ),
        ("gpu: V100", "gpu: V100\nqos: lnog", '6: qos = "lnog": your account may not use it. Did you mean "long"?'),
        (
            "gpu: V100",
            "gpu: V100\naccount_needed: true",
            "6: account_needed is true, and no account is named. Write `account: ...` with one of dssc, lade.",
        ),
        ("gpu: V100", "gpu: V100\npreemption: requeue", "6: preemption = requeue: Slurm says OFF of GPU. Remove it."),
    ],
)  # fmt: skip
def test_each_difference_has_its_line_and_its_mend(desk: Desk, old: str, new: str, fault: str) -> None:
    assert said(desk, {old: new}) == [fault]


def test_the_limits_are_those_of_the_account_the_partition_and_the_qos(desk: Desk) -> None:
    assert said(desk, {"gpu: V100": "gpu: V100\naccount: lade\nqos: normal"}) == [
        '12: max_walltime = "2:00:00": your association or qos allows 144:00:00. Write "144:00:00".'
    ]


def test_the_limit_of_the_qos_counts_before_the_associations_be_it_longer_or_shorter(desk: Desk) -> None:
    for hours in (24, 1):
        qos = {"long": Limits(hours * 3600, None)}
        assert limits(Cluster(name="x", kind="slurm", runs="/r", qos="long"), replace(FACTS, qos=qos), "GPU") == (
            Limits(hours * 3600, 20)  # the number of jobs is the association's, since this qos sets none
        )


def test_limits_that_slurm_does_not_know_are_differences_too(desk: Desk) -> None:
    free = replace(FACTS, associations=(Association("lab", "", ("normal",), "", Limits(None, None)),), qos={})
    free = replace(free, default_account="lab", partitions={"GPU": Partition("GPU", True, None, "OFF", (V100,))})
    assert said(desk, {}, free) == [
        '12: partition_walltime = "18:00:00": the partition GPU has no limit. Remove it.',
        '10: max_walltime = "2:00:00": your association or qos has no limit. Remove it.',
        "11: max_submit = 12: Slurm says no limit of yours. Remove it.",
    ]


def test_where_the_site_chooses_the_partition_only_what_no_node_at_all_has_is_refused(desk: Desk) -> None:
    desk.program(
        "sinfo", "echo 'cpu|infinite|OFF|3|24|250000|(null)|(null)'; echo 'g|2:00:00|OFF|1|24|9000000|gpu:V100:2|x'"
    )
    desk.change("partition: GPU\n", "", "site.yaml")
    desk.accepts("--set", "resources.memory=900G")
    assert desk.faults("--set", "resources.memory=9000G", "--set", "resources.nodes=8") == [
        "--set resources.nodes: resources.nodes = 8: the largest partition has 3. Ask for 3 at most.",
        "--set resources.memory: each node would have to give 9000G of memory, and has 8789G. Ask for less.",
    ]


def test_of_several_partitions_a_job_gets_the_nodes_of_one(desk: Desk) -> None:
    desk.program("sinfo", 'for p in A B; do echo "$p|2:00:00|OFF|3|24|250000|gpu:V100:2|v100"; done')
    desk.change("partition: GPU", "partition: A,B", "site.yaml")
    desk.accepts("--set", "resources.nodes=3", "--set", "train.batch_size=6")
    assert desk.faults("--set", "resources.nodes=4") == [
        "--set resources.nodes: resources.nodes = 4: the largest partition has 3. Ask for 3 at most."
    ]


def test_memory_written_in_a_way_that_only_sbatch_knows_is_left_to_it(desk: Desk) -> None:
    desk.program("sinfo", "echo 'GPU*|18:00:00|OFF|3|24|250000|gpu:V100:2|v100'")
    desk.change("memory_per_gpu: 60G\n", "options: {mem: 900GB}\n", "site.yaml")
    assert "#SBATCH --mem=900GB\n" in desk.accepts()


def test_a_file_without_a_partition_is_held_against_the_accounts_alone(desk: Desk) -> None:
    none = {"partition: GPU\n": "account: lade\n", "gpus_per_node: 2": "gpus_per_node: 4", "18:00:00": "19:00:00"}
    assert said(desk, none) == [
        '10: max_walltime = "2:00:00": your association or qos allows 144:00:00. Write "144:00:00".'
    ]


def test_a_features_name_may_have_signs_in_it(desk: Desk) -> None:
    node = replace(V100, features=frozenset({"GPU_MEM:32GB", "ib+eth"}))
    facts = replace(FACTS, partitions={"GPU": replace(FACTS.partitions["GPU"], nodes=(node,))})
    assert said(desk, {"gpu: V100": "gpu: V100\nconstraint: '[GPU_MEM:32GB*2&ib+eth]'"}, facts) == []
    desk.change("32GB*2", "16GB*2", "site.yaml")
    file = read_cluster_file(Choice("./site.yaml", "here"))
    assert [fault.what for fault in differences(file, facts)] == [
        'constraint = "[GPU_MEM:16GB*2&ib+eth]": no node there has the feature GPU_MEM:16GB.'
    ]


@pytest.mark.parametrize("partition", [None, "EPYC"])
def test_a_draft_differs_in_nothing_from_what_it_was_made_of(desk: Desk, partition: str | None) -> None:
    desk.patch.setenv("SCRATCH", "/scratch/ada")
    desk.write("new.yaml", draft(FACTS, partition))
    file = read_cluster_file(Choice("./new.yaml", "here"))
    assert list(differences(file, FACTS)) == []
    assert str(file.cluster.runs_folder()) == "/scratch/ada/hpcft"
    if partition is None:
        assert (file.cluster.partition, gpu_kind(file.cluster), file.cluster.bf16) == ("GPU", "V100", False)
        assert (file.cluster.gpus_per_node, file.cluster.cpus_per_gpu, file.cluster.max_submit) == (2, 12, 12)


# --- the command ---


def test_what_show_prints_is_a_cluster_file_that_means_the_same(desk: Desk) -> None:
    desk.write("mine.yaml", "extends: narval\naccount: def-ada\noptions: {mail-type: 'FAIL'}\n")
    shown = desk.run("cluster", "show", "./mine.yaml")
    assert shown.code == 0
    assert "account: def-ada" in shown.out and "# mine.yaml:2" in shown.out and "# narval.yaml:" in shown.out
    desk.write("again.yaml", shown.out)
    assert (
        read_cluster_file(Choice("./again.yaml", "x")).cluster == read_cluster_file(Choice("./mine.yaml", "x")).cluster
    )


def test_the_list_says_where_each_file_is_from_and_which_is_this_sites(desk: Desk) -> None:
    desk.patch.setattr("socket.gethostname", lambda: "login07.leonardo.local")
    desk.write("home/.config/hpcft/clusters/mine.yaml", "extends: narval\naccount: def-ada\n")
    desk.write("home/.config/hpcft/clusters/broken.yaml", "extends: narval\nacount: def-ada\n")
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in desk.run("cluster", "list").out.splitlines()
        if line.startswith("│")
    ]
    found = {row[0]: row[1:] for row in rows}
    assert found["leonardo"] == ["hpcft", "4 x A100 64 GiB", "24:00:00", "yes"]
    assert found["orfeo"] == ["hpcft", "2 x V100 32 GiB", "2:00:00", ""]
    assert found["narval"] == ["hpcft", "4 x A100 40 GiB", "168:00:00", "?"]
    assert found["mine"] == ["you", "4 x A100 40 GiB", "168:00:00", "?"]
    assert found["broken"][1] == "1 fault: hpcft cluster show broken"
    assert "# Leonardo" not in desk.run("cluster", "show").out
    assert "partition: boost_usr_prod" in desk.run("cluster", "show").out


def test_without_a_name_and_a_file_for_this_machine_the_command_asks_for_one(desk: Desk) -> None:
    answer = desk.run("cluster", "show")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("hpcft: NAME: no file names this machine in its hosts. Name one: bridges-2, ")


def test_a_draft_never_writes_over_a_file(desk: Desk) -> None:
    desk.program("sinfo", "echo 'GPU*|18:00:00|OFF|3|24|250000|gpu:V100:2|v100'")
    assert desk.run("cluster", "init", "-o", "new.yaml").out.startswith("new.yaml: look it over")
    mine = "home/.config/hpcft/clusters/ours.yaml"  # where nobody has made a folder yet
    assert desk.run("cluster", "init", "-o", mine).out.startswith(f"{mine}: look it over")
    assert "partition: GPU" in desk.run("cluster", "show", "ours").out
    again = desk.run("cluster", "init", "-o", "new.yaml")
    assert (again.code, again.err) == (2, "hpcft: -o: new.yaml cannot be written: file exists. Name a new file.\n")
    wrong = desk.run("cluster", "init", "--partition", "GPUU")
    assert wrong.err == 'hpcft: --partition: Slurm has no partition "GPUU". Did you mean "GPU"?\n'


def test_a_recipes_own_partition_has_its_own_longest_job(desk: Desk) -> None:
    desk.program(
        "sinfo", "echo 'GPU*|18:00:00|OFF|3|24|250000|gpu:V100:2|x'; echo 'dev|30:00|OFF|1|24|250000|gpu:V100:2|x'"
    )
    change = ("--set", "resources.partition=dev", "--set", "resources.walltime=1:00:00")
    assert desk.faults(*change) == [
        "--set resources.walltime: a job of 1:00:00 is longer than the partition dev allows, 0:30:00."
        ' Write "0:30:00" at most.'
    ]
    desk.accepts(*change, "--set", "resources.qos=long")
