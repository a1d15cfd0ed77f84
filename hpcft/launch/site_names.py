"""The names in a cluster file that are no partition's nodes: reservation, excluded nodes, who may use the partition."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.launch.cluster import ClusterFile
from hpcft.launch.slurm import call
from hpcft.launch.slurm_site import SiteFacts


def name_differences(site: ClusterFile, facts: SiteFacts) -> Iterator[Fault]:
    """What the file names and Slurm does not know, or does not let in; nothing where Slurm is silent."""
    yield from _reservation(site)
    yield from _excluded(site)
    yield from _not_let_in(site, facts)


def _reservation(site: ClusterFile) -> Iterator[Fault]:
    name = site.cluster.reservation
    if name is None or (rows := _records("reservation")) is None:
        return
    known = sorted(row["ReservationName"] for row in rows if "ReservationName" in row)
    if not set(name.split(",")) & set(known):  # of several, a job takes whichever it can
        fix = did_you_mean(name, known) if known else "Remove it: there is none at all."
        yield Fault(site.where("reservation"), f'reservation = "{name}": Slurm has no such reservation.', fix)


def _excluded(site: ClusterFile) -> Iterator[Fault]:
    if not site.cluster.exclude or (known := _lines("sinfo", "--all", "--noheader", "--Node", "--format=%N")) is None:
        return
    for index, names in enumerate(site.cluster.exclude):
        nodes = _lines("scontrol", "show", "hostnames", names) or []
        if missing := [node for node in nodes if node not in known]:
            what = f'exclude = "{names}": Slurm has no node {missing[0]}, and sbatch would refuse every job.'
            near = get_close_matches(missing[0], known, n=1)  # the whole menu of a site's nodes would help nobody
            yield Fault(site.where(f"exclude.{index}"), what, f'Did you mean "{near[0]}"?' if near else "Remove it.")


def _not_let_in(site: ClusterFile, facts: SiteFacts) -> Iterator[Fault]:
    """That the partition is closed to the account or the qos of the file."""
    cluster = site.cluster
    named = {"account": cluster.account or facts.default_account, "qos": cluster.qos}
    if cluster.partition is None or not any(named.values()) or (rows := _records("partition")) is None:
        return
    mine = {
        "account": {each.account for each in facts.associations or ()},
        "qos": {name for each in facts.associations or () for name in each.qos},
    }
    for row in rows:
        if row.get("PartitionName") not in cluster.partition.split(","):
            continue
        for key, title in (("account", "Accounts"), ("qos", "Qos")):
            allowed, denied = row.get(f"Allow{title}", "ALL"), row.get(f"Deny{title}", "")
            name = (named[key] or "").lower()  # Slurm keeps them so
            if not name or (name not in denied.split(",") and (allowed == "ALL" or name in allowed.split(","))):
                continue
            what = f'{key} = "{named[key]}": the partition {row["PartitionName"]} takes no job of it.'
            others = mine[key] - {name} - set(denied.split(","))
            open_to = sorted(others if allowed == "ALL" else others & set(allowed.split(",")))
            fix = f"Write one of {', '.join(open_to)}." if open_to else "Name another partition."
            yield Fault(site.where(key), what, fix)


def _records(kind: str) -> list[dict[str, str]] | None:
    """What `scontrol show` says of all of a kind, `{"PartitionName": "GPU", ...}` each; None if it does not answer."""
    lines = _lines("scontrol", "--oneliner", "--all", "show", kind)
    if lines is None:
        return None
    return [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in lines]


def _lines(program: str, *arguments: str) -> list[str] | None:
    try:
        return [line.strip() for line in call(program, *arguments).splitlines()]
    except UserError:
        return None
