"""What Slurm says of the site: partitions and their nodes, and what this user may."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hpcft.errors import UserError
from hpcft.launch.slurm import call, scrubbed_environment, seconds_left

GPUS = re.compile(r"\bgpu:(?:([^:,()]+):)?(\d+)")


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike."""

    number: int
    cpus: int
    memory: int
    """MiB."""
    gpus: dict[str, int]
    """GPUs of one node by type; the type is empty where the site names none."""
    features: frozenset[str]


@dataclass(frozen=True)
class Partition:
    """A partition and the kinds of node in it."""

    name: str
    default: bool
    walltime: int | None
    """Seconds of its longest job; None if it has no limit."""
    preemption: str
    """Slurm's own word, `OFF`, `REQUEUE`, `CANCEL`."""
    nodes: tuple[Nodes, ...]


@dataclass(frozen=True)
class Limits:
    """What one user may; None is no limit."""

    walltime: int | None
    """Seconds of the longest job."""
    submit: int | None
    """Jobs in the queue."""


@dataclass(frozen=True)
class Association:
    """An account that this user may bill, for one partition or for all."""

    account: str
    partition: str
    """Empty for all."""
    qos: tuple[str, ...]
    default_qos: str
    limits: Limits


@dataclass(frozen=True)
class SiteFacts:
    """All of it. None for what Slurm did not say, as where a site has no accounting."""

    partitions: dict[str, Partition] | None
    associations: tuple[Association, ...] | None
    qos: dict[str, Limits] | None
    default_account: str | None


def read_site() -> SiteFacts:
    """What Slurm says here; None for what it does not."""
    user, cluster = getpass.getuser(), _cluster_name()
    fields = "Account,Partition,QOS,DefaultQOS,MaxWall,MaxSubmit"
    where = ("where", f"user={user}", *((f"cluster={cluster}",) if cluster else ()))
    found = _ask("sacctmgr", "-nP", "show", "assoc", *where, f"format={fields}")
    qos = _ask("sacctmgr", "-nP", "show", "qos", "format=Name,MaxWall,MaxSubmitPU")
    account = _ask("sacctmgr", "-nP", "show", "user", user, "format=DefaultAccount")
    return SiteFacts(
        read_partitions(),
        None if found is None else tuple(map(_association, found)),
        None if qos is None else {row[0]: Limits(seconds_left(row[1]), _number(row[2])) for row in qos},
        account[0][0] if account and account[0][0] else None,
    )


def known_names(option: str) -> list[str]:
    """What Slurm knows for an option of sbatch: partitions, or this user's accounts or qos; nothing if it is silent."""
    if option == "partition":
        return sorted(read_partitions() or ())
    associations = read_site().associations or ()
    if option == "account":
        return sorted({each.account for each in associations})
    return sorted({name for each in associations for name in each.qos}) if option == "qos" else []


def read_partitions() -> dict[str, Partition] | None:
    """Every partition by name, hidden ones too; None if Slurm does not answer."""
    with scrubbed_environment():
        rows = _ask("sinfo", "--all", "--noheader", "--exact", "--format=%P|%l|%M|%D|%c|%m|%G|%f")
    if rows is None:
        return None
    found: dict[str, Partition] = {}
    for marked, walltime, preemption, *node in rows:
        name = marked.removesuffix("*")
        new = Partition(name, marked.endswith("*"), seconds_left(walltime), preemption, ())
        partition = found.setdefault(name, new)
        found[name] = replace(partition, nodes=(*partition.nodes, *_nodes(*node)))
    return found


def _nodes(number: str, cpus: str, memory: str, gres: str, features: str) -> Iterator[Nodes]:
    if _size(number):
        gpus: dict[str, int] = {}
        for kind, count in GPUS.findall(gres):
            gpus[kind] = gpus.get(kind, 0) + int(count)
        known = frozenset(features.split(",")) - {"(null)"}
        yield Nodes(_size(number), _size(cpus), _size(memory), gpus, known)


def _association(row: list[str]) -> Association:
    account, partition, qos, default_qos, walltime, submit = row
    limits = Limits(seconds_left(walltime), _number(submit))
    return Association(account, partition, tuple(qos.split(",")) if qos else (), default_qos, limits)


def _cluster_name() -> str | None:
    """This cluster's name in the accounts, which may be those of several."""
    try:
        pairs = (line.partition("=") for line in call("scontrol", "show", "config").splitlines())
    except UserError:
        return None
    return next((value.strip() for key, _, value in pairs if key.strip() == "ClusterName"), None)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _size(text: str) -> int:
    """A number of sinfo's: `24`, `24+` of nodes that differ, `1K` for 1024."""
    digits = text.rstrip("+").removesuffix("K")
    return int(digits) * (1024 if "K" in text else 1) if digits.isdigit() else 0


def _ask(program: str, *arguments: str) -> list[list[str]] | None:
    """The rows that a program printed, parted at the bars of its format; None if it failed."""
    try:
        output = call(program, *arguments)
    except UserError:
        return None
    columns = max(argument.count("|") + argument.count(",") for argument in arguments if "format=" in argument) + 1
    rows = (line.split("|") for line in output.splitlines())
    return [row for row in rows if len(row) == columns]  # less what a site's own wrapper prints beside them
