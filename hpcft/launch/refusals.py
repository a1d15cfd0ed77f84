"""Refusals: what sbatch says when it does not take a job, in words and with the mend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcft.errors import Fault, did_you_mean

SHORTER = "Write a shorter resources.walltime: the chain goes on past it by itself."
FEWER = "Wait until jobs have ended, or write a smaller resources.queued."
PLACE = "It stands in the recipe's resources or in the cluster's file."


@dataclass(frozen=True)
class Refusal:
    """One thing that sbatch objects to."""

    option: str
    """The option at fault; empty if it is none."""
    what: str
    """With {value} for the option's value."""
    fix: str


REFUSALS = {
    # Before "Job violates accounting/QOS policy", which sbatch says beside each of these.
    "AssocMaxSubmitJobLimit": Refusal("account", "your association takes no more jobs in the queue.", FEWER),
    "AssocGrpSubmitJobsLimit": Refusal("account", "your group has as many jobs in the queue as it may.", FEWER),
    "QOSMaxSubmitJobPerUserLimit": Refusal("qos", "the qos takes no more jobs of yours in the queue.", FEWER),
    "QOSGrpSubmitJobsLimit": Refusal("qos", "the qos takes no more jobs in the queue.", FEWER),
    "AssocMaxWallDurationPerJobLimit": Refusal("time", "your association allows no job that long.", SHORTER),
    "QOSMaxWallDurationPerJobLimit": Refusal("time", "the qos allows no job that long.", SHORTER),
    "Invalid partition name specified": Refusal("partition", 'there is no partition "{value}".', ""),
    "Invalid account or account/partition combination": Refusal(
        "account", 'the account "{value}" is not yours, or not for this partition.', ""
    ),
    "Invalid qos specification": Refusal("qos", 'the qos "{value}" is not for you, or there is none.', ""),
    "Requested time limit is invalid": Refusal("time", "no job may be that long.", SHORTER),
    "Requested node configuration is not available": Refusal(
        "", "no node has what the job asks for.", "Ask for fewer GPUs, cores or less memory: `hpcft cluster check`."
    ),
    "Memory specification can not be satisfied": Refusal(
        "mem", "no node has as much memory.", "Ask for less: `hpcft cluster check`."
    ),
    "More processors requested than permitted": Refusal(
        "cpus-per-task", "no node has {value} cores.", "Write fewer resources.cpus_per_process, or cpus_per_gpu."
    ),
    "Node count specification invalid": Refusal(
        "nodes", "the partition has no {value} nodes.", "Write fewer resources.nodes."
    ),
    "Invalid feature specification": Refusal("constraint", 'no node has the feature "{value}".', PLACE),
    "Invalid generic resource (gres) specification": Refusal(
        "gres", 'this Slurm does not know "{value}".', "Mend gpu_request in the cluster's file: `hpcft cluster check`."
    ),
    "Requested reservation is invalid": Refusal("reservation", 'there is no reservation "{value}".', PLACE),
    "Invalid node name specified": Refusal("exclude", 'there is no node "{value}".', PLACE),
    "Job violates accounting/QOS policy": Refusal("", "your account or qos does not allow this job.", FEWER),
    "Required partition not available": Refusal("partition", 'the partition "{value}" is closed.', "Try again later."),
}
"""By what sbatch says; the first that fits counts."""


def explain(fault: Fault, options: dict[str, str], known: Callable[[str], Sequence[str]]) -> Fault:
    """What the words of sbatch in a fault mean; that fault itself if they are not known here.

    `known` gives what Slurm knows of an option, such as all partitions; it is asked only for a name that is wrong.
    """
    for said, refusal in REFUSALS.items():
        if said not in fault.what:
            continue
        value = options.get(refusal.option, "")
        where = f"sbatch --{refusal.option}={value}" if value else "sbatch"
        fix = refusal.fix
        if not fix:
            names = known(refusal.option)
            fix = f"{did_you_mean(value, names)} {PLACE}" if value and names else PLACE
        what = refusal.what.format(value=value) if value or "{value}" not in refusal.what else f"{said}."
        if " " not in said:  # the name of a limit, which an administrator knows
            what = f"{what.removesuffix('.')} ({said})."
        return Fault(where, what, fix)
    return fault
