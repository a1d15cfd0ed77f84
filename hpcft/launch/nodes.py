"""Nodes that a run keeps away from, since a job failed there that did well elsewhere."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from hpcft.disk import read_json, write_json
from hpcft.rundir import JobDir, RunDir

BROKEN = re.compile(
    r"uncorrectable ECC|CUDA-capable device|device\(s\) is/are busy or unavailable|CUDA error: unknown error"
    r"|fallen off the bus|NVML|CUDA driver initialization failed|Stale file handle|Input/output error"
    r"|Transport endpoint is not connected"
)
"""What is said where a GPU or a file system of a node is broken, not the program."""


@dataclass(frozen=True)
class Blame:
    """Why a node is to be left out."""

    node: str
    reason: str


def node_of(job: JobDir) -> str | None:
    """The node of a job, as Slurm calls it; of several, the one that failed, None where nobody knows which."""
    node: str | None = (job.ended or {}).get("node") or (job.started or {}).get("node")
    return None if node and re.search(r"[\[,]", node) else node


def excluded(run: RunDir) -> dict[str, str]:
    """Why each node is left out, by name."""
    return {node: str(fact["reason"]) for node, fact in (read_json(run.path / "excluded.json") or {}).items()}


def exclude(run: RunDir, job: JobDir, blame: Blame) -> None:
    """Let no further job of this run go to that node."""
    facts = read_json(run.path / "excluded.json") or {}
    facts[blame.node] = {"job": job.number, "reason": blame.reason, "time": time.time()}
    write_json(run.path / "excluded.json", facts)


def blame(run: RunDir, job: JobDir, *, known_cause: bool) -> Blame | None:
    """The node of an ended job, if the failure looks like the node's.

    `known_cause`: whether the job's own words name something that would fail on every node, such as memory.
    """
    ended, node = job.ended, node_of(job)
    if not ended or not node or ended["ending"] not in ("crashed", "killed") or ended.get("progress") or known_cause:
        return None
    if ended.get("slurm_state") in ("NODE_FAIL", "BOOT_FAIL"):
        return Blame(node, "Slurm says that it failed")
    words = str(ended.get("reason", ""))
    if found := BROKEN.search(words):
        return Blame(node, f"job {job.number} failed there: {found[0]}")
    if ended["ending"] != "crashed" and job.started:
        return None  # killed from outside, by whoever it was
    elsewhere = {node_of(other) for other in run.jobs() if (other.ended or {}).get("progress")}
    if elsewhere and node not in elsewhere:
        return Blame(node, f"job {job.number} failed there at once, and jobs on {_names(elsewhere)} did not")
    return None


def _names(nodes: set[str | None]) -> str:
    return ", ".join(sorted(node for node in nodes if node))
