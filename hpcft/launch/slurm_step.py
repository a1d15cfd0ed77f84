"""Steps of a job: the only file beside slurm.py that knows srun, which a job's supervisor uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def on_other_nodes(
    count: int, command: Sequence[str], environment: Mapping[str, str], *, whole_nodes: bool = False
) -> list[str]:
    """The command that runs this one once on each node of our job but the first.

    It has the job's GPUs there, since a step that asks for none gets what the job asked for by node or task.
    SLURM_NODEID counts from 0 in it.
    """
    flags = {
        "nodes": str(count),
        "ntasks": str(count),
        "ntasks-per-node": "1",
        "relative": "1",
        "export": "ALL",
        "mpi": "none",
        "cpu-bind": "none",
        "kill-on-bad-exit": "1",
    }
    if cpus := environment.get("SLURM_CPUS_PER_TASK"):
        flags["cpus-per-task"] = cpus  # srun does not take it from the job in 22.05 and 23.02
    if gpus := environment.get("SLURM_GPUS"):  # the job asked by --gpus, for those of all its nodes
        kind, colon, total = gpus.rpartition(":")
        flags["gpus"] = f"{kind}{colon}{int(total) * count // (count + 1)}"
    if whole_nodes and (gpus := environment.get("SLURM_GPUS_ON_NODE")):
        flags["gres"] = f"gpu:{gpus}"  # a step has none of those that a job got with its whole nodes, unless it asks
    options = [f"--{key}={value}" for key, value in sorted(flags.items())]
    return ["srun", "--overlap", "--quiet", *options, *command]
