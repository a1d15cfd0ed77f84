"""A draft of a cluster file, from what Slurm says of the site."""

from __future__ import annotations

import os
import socket

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.launch.cluster import Cluster
from hpcft.launch.site import limits, most_gpus
from hpcft.launch.slurm_site import Partition, SiteFacts
from hpcft.schema import clock
from hpcft.yamlfile import yaml_line

CARDS = {
    "v100": ("V100", "sm_70", False),
    "volta": ("V100", "sm_70", False),
    "a100": ("A100", "sm_80", True),
    "h100": ("H100", "sm_90", True),
    "h200": ("H200", "sm_90", True),
}
"""Card, architecture and whether it computes in bf16, by the beginning of what sites call it in their gres."""
SCRATCH = ("SCRATCH", "WORK", "HOME")
"""Variables that name a folder for runs, the best first."""


def draft(facts: SiteFacts, wanted: str | None) -> str:
    """The text of a cluster file for a partition, the most likely one when None. Raises UserError: no such one."""
    partition = _choose(facts.partitions or {}, wanted)
    kinds = sorted({kind for node in partition.nodes for kind in node.gpus})
    kind = max(kinds, default="", key=lambda kind: most_gpus(partition.nodes, kind))
    gpus = most_gpus(partition.nodes, kind)
    cores = max((node.cpus for node in partition.nodes), default=0)
    scratch = next((name for name in SCRATCH if os.environ.get(name)), "HOME")
    lines = [
        f"# Drafted on {socket.gethostname()} from what Slurm says of the partition {partition.name}.",
        "# `hpcft cluster check` holds it against Slurm. See to what Slurm does not know: the folders, and whether",
        "# compute nodes reach the internet (internet) and may submit jobs (jobs_may_submit).",
        yaml_line("kind", "slurm"),
        yaml_line("hosts", [socket.gethostname()]),
        yaml_line("runs", f"${scratch}/hpcft") + "  # a folder that compute nodes see, on scratch where there is one",
        yaml_line("cache", f"${scratch}/huggingface"),
        yaml_line("envs", f"${scratch}/envs"),
        yaml_line("partition", partition.name),
    ]
    if facts.default_account:
        lines.append(yaml_line("account", facts.default_account) + f"{_others(facts)}")
    lines.append(yaml_line("gpus_per_node", gpus))
    if gpus:
        lines += _card(kind)
        typed = f"{kind}:" if kind else ""
        lines += [yaml_line("gpu_request", f"gres=gpu:{typed}{{gpus}}")]
    if cores:
        lines.append(yaml_line("cpus_per_node", cores))
    if gpus:
        lines.append(yaml_line("cpus_per_gpu", max(1, cores // gpus)) + "  # an even share of a node")
    bound = limits(Cluster(name="draft", kind="slurm", runs="x"), facts, partition.name)
    for key, value in (("max_walltime", bound.walltime), ("partition_walltime", partition.walltime)):
        if value is not None:
            lines.append(yaml_line(key, clock(value)))
    if bound.submit is not None:
        lines.append(yaml_line("max_submit", bound.submit))
    return "\n".join([*lines, ""])


def _choose(partitions: dict[str, Partition], wanted: str | None) -> Partition:
    """The partition of this name; else the default one if it has GPUs, else the one with the most."""
    if wanted is not None:
        if wanted not in partitions:
            fix = did_you_mean(wanted, list(partitions))
            raise UserError(Fault("--partition", f'Slurm has no partition "{wanted}".', fix))
        return partitions[wanted]
    if not partitions:
        raise UserError(Fault("sinfo", "shows no partition.", "Run this on a login node of the cluster."))
    return max(partitions.values(), key=lambda each: (bool(_all_gpus(each)) and each.default, _all_gpus(each)))


def _all_gpus(partition: Partition) -> int:
    return sum(node.number * sum(node.gpus.values()) for node in partition.nodes)


def _card(kind: str) -> list[str]:
    """What is known of a card by its type in the gres."""
    known = next((card for start, card in CARDS.items() if kind.lower().startswith(start)), None)
    if known is None:
        return [yaml_line("gpu", kind)] if kind else []
    name, architecture, bf16 = known
    return [yaml_line("gpu", name), yaml_line("gpu_arch", architecture), yaml_line("bf16", bf16)]


def _others(facts: SiteFacts) -> str:
    accounts = sorted({each.account for each in facts.associations or ()} - {facts.default_account or ""})
    return f"  # or {', '.join(accounts)}" if accounts else ""
