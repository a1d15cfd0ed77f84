"""What a cluster file names, held against the names that Slurm knows and lets in."""

from __future__ import annotations

import pytest

from hpcft.launch.cluster import Choice, read_cluster_file
from hpcft.launch.site_names import name_differences
from hpcft.launch.slurm_site import Association, Limits, SiteFacts
from tests.desk import Desk

PARTITIONS = """\
PartitionName=GPU AllowGroups=ALL AllowAccounts=dssc,lade AllowQos=ALL Default=YES QoS=N/A Nodes=gpu[001-004]
PartitionName=EPYC AllowGroups=ALL DenyAccounts=lade DenyQos=long,short Default=NO QoS=N/A Nodes=epyc[001-008]
"""
SCONTROL = """\
case "$*" in
  *reservation*) echo 'ReservationName=course StartTime=2026-11-22T09:00:00 Nodes=gpu001';;
  *hostnames*'gpu[003-004]') echo gpu003; echo gpu004;;
  *hostnames*) for last; do :; done; echo $last;;
  *partition*) /bin/cat partitions;;
esac
"""
FACTS = SiteFacts(
    partitions={},
    associations=tuple(Association(name, "", ("normal", "long"), "", Limits(None, None)) for name in ("dssc", "free")),
    qos=None,
    default_account="dssc",
)


def said(desk: Desk, more: str, partition: str = "GPU") -> list[str]:
    """What is said of the desk's cluster file with these lines at its end."""
    desk.write("partitions", PARTITIONS)
    desk.program("scontrol", SCONTROL)
    desk.program("sinfo", "echo gpu001; echo gpu003; echo gpu004")
    desk.change("partition: GPU", f"partition: {partition}", "site.yaml")
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + more)
    file = read_cluster_file(Choice("./site.yaml", "here"))
    return [str(fault).removeprefix("site.yaml:") for fault in name_differences(file, FACTS)]


def test_names_that_slurm_knows_and_lets_in_are_no_difference(desk: Desk) -> None:
    assert said(desk, "reservation: course\nexclude: ['gpu[003-004]', gpu001]\naccount: dssc\nqos: long\n") == []


@pytest.mark.parametrize(
    ("partition", "more", "fault"),
    [
        (
            "GPU",
            "reservation: curse\n",
            '12: reservation = "curse": Slurm has no such reservation. Did you mean "course"?',
        ),
        (
            "GPU",
            "exclude: ['gpu[003-004]', gpu0011]\n",
            '12: exclude = "gpu0011": Slurm has no node gpu0011, and sbatch would refuse every job. '
            'Did you mean "gpu001"?',
        ),
        ("GPU", "account: free\n", '12: account = "free": the partition GPU takes no job of it. Write one of dssc.'),
        ("EPYC", "qos: long\n", '12: qos = "long": the partition EPYC takes no job of it. Write one of normal.'),
        (
            "GPU,EPYC",
            "account: lade\n",
            '12: account = "lade": the partition EPYC takes no job of it. Write one of dssc, free.',
        ),
    ],
)
def test_a_name_that_slurm_does_not_take_has_its_line_and_its_mend(
    desk: Desk, partition: str, more: str, fault: str
) -> None:
    assert said(desk, more, partition) == [fault]


def test_a_slurm_that_is_silent_makes_no_difference(desk: Desk) -> None:
    assert said(desk, "reservation: x\nexclude: [y]\naccount: free\n") != []
    desk.program("scontrol", "exit 1")
    desk.program("sinfo", "exit 1")
    file = read_cluster_file(Choice("./site.yaml", "here"))
    assert list(name_differences(file, FACTS)) == []
