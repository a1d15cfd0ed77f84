"""`hpcft env check`: what an env can do on a node of the cluster, found by trying it there."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpcft
from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, read_facts
from hpcft.launch.envfit import OLDEST, SUPERVISOR, VOLTA_TORCH, WORKERS, install, runs_on
from hpcft.launch.envlock import changes, deciding, read_lock, versions
from hpcft.launch.envrecord import record_check
from hpcft.launch.slurm_command import on_a_node, run_command
from hpcft.launch.submission import slurm_options
from hpcft.recipe import Recipe
from hpcft.sections import Resources

MARK = "HPCFT-PROBE "
"""Begins the probe's answer: packages may print when they are imported."""
CHECK_WALLTIME = "0:10:00"
SLOW_IMPORTS = 60.0
"""Seconds of imports at the start of every job from which on something should be done about them."""
SHOWN_CHANGES = 6


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    found: str
    fault: str = ""
    """What is wrong with it; nothing if nothing is."""
    mend: str = ""
    grave: bool = True
    """Whether a job would fail of it; else it is slow, or another than was locked."""


def node_options(cluster: Cluster, asked: Resources | None = None) -> dict[str, str]:
    """Options of a job with one GPU, or with none where the recipe asks for none or the cluster has none.

    `asked` is the recipe's, whose account and partition it takes; its walltime is not among the options.
    """
    places = {key: getattr(asked, key) for key in ("account", "partition", "qos", "constraint")} if asked else {}
    resources = Resources(gpus=1 if wants_gpus(cluster, asked) else 0, **places)
    return slurm_options(Recipe.model_construct(resources=resources), cluster)


def wants_gpus(cluster: Cluster, asked: Resources | None) -> bool:
    """Whether what is tried will train on GPUs: the recipe says so, else the cluster."""
    return has_gpus(cluster) and (asked is None or asked.gpus > 0)


def has_gpus(cluster: Cluster) -> bool:
    """Whether jobs there ask for GPUs."""
    return cluster.gpu_request is not None and cluster.gpus_per_node != 0


def probe_command(env: Env, cluster: Cluster, asked: Resources | None = None) -> list[str]:
    """The command that runs the probe as a job would find the env: through srun on a cluster, else just here."""
    probe = shlex.join([str(env.python), str(Path(hpcft.__file__).parent / "train" / "probe.py")])
    # Nothing of ours is put before the env's own packages: what is tried must be what is there.
    alone = "unset PYTHONPATH; export PYTHONSAFEPATH=1"
    lines = (*cluster.setup, *env.setup(), alone, f"exec {probe}")
    command = ["bash", "-c", "\n".join(lines)]
    if cluster.kind == "local":
        return command
    options = {**node_options(cluster, asked), "time": CHECK_WALLTIME, **cluster.debug_options}
    return on_a_node(options, "hpcft-env-check", command)


def check(env: Env, cluster: Cluster, where: str, asked: Resources | None = None) -> list[Row]:
    """The table. What was found is recorded, for the next submit. Raises UserError if nothing could be asked.

    `asked` is the recipe's, where one was named: without GPUs in it, torch needs no CUDA.
    """
    facts = read_facts(env, (*SUPERVISOR, *WORKERS), where)
    code, said = run_command(probe_command(env, cluster, asked), read=True)
    answers = [line.removeprefix(MARK) for line in said.splitlines() if line.startswith(MARK)]
    if not answers:
        fix = "Its own words stand above."
        raise UserError(Fault("hpcft env check", f"the probe on {cluster.name} ended with exit code {code}.", fix))
    found: dict[str, Any] = json.loads(answers[-1])
    with contextlib.suppress(OSError):  # a full home keeps nobody from the table
        record_check(env, facts["torch"], cluster.name, found)
    return [*env_rows(env, facts), *torch_rows(env, cluster, found, asked), *import_rows(env, found)]


def env_rows(env: Env, facts: dict[str, Any]) -> Iterator[Row]:
    """Python, what is missing, and what has changed since the lock was written."""
    python = tuple(int(part) for part in facts["python"].split("."))
    old = f"hpcft needs {OLDEST[0]}.{OLDEST[1]}" if python[:2] < OLDEST else ""
    yield Row("python", facts["python"], old, "Make it anew with `python=3.11`." if old else "")
    lacking = [SUPERVISOR[name] for name in facts["missing"] if name in SUPERVISOR]
    fault = f"no {', '.join(lacking)}" if lacking else ""
    yield Row("hpcft's needs", "missing" if lacking else "there", fault, "Install hpcft there." if lacking else "")
    if env.file is None or not (locked := read_lock(env.file.lock)):
        yield Row("lock", "none")
        return
    differ = changes(locked, versions(env.prefix, facts), new=False)
    if not differ:
        yield Row("lock", f"as {env.file.lock.name}")
        return
    shown = "; ".join(differ[:SHOWN_CHANGES]) + ("; …" if len(differ) > SHOWN_CHANGES else "")
    mend = f"Make it anew, or `hpcft env lock {shlex.quote(str(env.file.path))}`."
    yield Row("lock", f"{len(differ)} differ", shown, mend, grave=bool(deciding(differ)))


def torch_rows(env: Env, cluster: Cluster, found: dict[str, Any], asked: Resources | None = None) -> Iterator[Row]:
    """torch against the GPU that the node has, or should have."""
    torch = found["torch"]
    if torch is None:
        return  # the rows of imports say why
    pin = VOLTA_TORCH if cluster.gpu_arch == "sm_70" else "torch"
    build = f"{torch['version']}, CUDA {torch['cuda'] or 'none'}"
    expected = cluster.kind == "slurm" and wants_gpus(cluster, asked)
    if not torch["cuda"] and expected:
        mend = f"{install(env, ['--force-reinstall', pin])[:-1]}, or check a recipe with `gpus: 0`."
        yield Row("torch", build, "a build without CUDA", mend)
    else:
        yield Row("torch", build, torch.get("fault", ""))
    if not torch["gpus"]:
        blind = "torch sees none on a node that has some" if expected and torch["cuda"] else ""
        mend = f"`nvidia-smi` there shows the driver; torch is for CUDA {torch['cuda']}." if blind else ""
        yield Row("GPU", "none", blind, mend)
    for card in torch["gpus"][:1]:
        yield from _card_rows(env, cluster, torch, card, pin)
    if (nvcc := found["nvcc"]) and torch["cuda"]:
        same = nvcc.partition(".")[0] == torch["cuda"].partition(".")[0]
        fault = "" if same else f"torch is for CUDA {torch['cuda']}: extensions cannot be compiled"
        mend = "" if same else f"Load a CUDA {torch['cuda'].partition('.')[0]} module in the cluster's `setup`."
        yield Row("nvcc", nvcc, fault, mend, grave=False)


def _card_rows(env: Env, cluster: Cluster, torch: dict[str, Any], card: dict[str, Any], pin: str) -> Iterator[Row]:
    """One GPU: its architecture, memory and bf16, against torch and against the cluster's file."""
    built = " ".join(torch["archs"])
    fits = runs_on(torch["archs"], card["arch"])
    fault = card["fault"] or ""
    if not fits:
        fault = f"torch is not built for {card['arch']}"
    elif cluster.gpu_arch and cluster.gpu_arch != card["arch"]:
        fault = f"the file of {cluster.name} says {cluster.gpu_arch}"
    mend = install(env, [pin]) if not fits else "Correct gpu_arch there." if fault and not card["fault"] else ""
    yield Row(
        "GPU", f"{card['name']}, {card['arch']}; torch for {built}", fault, mend, grave=bool(card["fault"]) or not fits
    )
    memory = card["memory"] / 2**30
    less = cluster.gpu_memory is not None and memory < 0.9 * cluster.gpu_memory  # a driver keeps some of it
    said = f"the file of {cluster.name} says {cluster.gpu_memory:g} GiB" if less else ""
    yield Row("memory", f"{memory:.1f} GiB", said, "Correct gpu_memory there." if less else "", grave=False)
    bf16 = {None: "?", True: "yes", False: "no"}[card.get("bf16")]
    wrong = bf16 == "no" and cluster.bf16
    said = f"the file of {cluster.name} says that it has" if wrong else ""
    yield Row("bf16", bf16, said, "Write `bf16: false` there." if wrong else "", grave=False)


def import_rows(env: Env, found: dict[str, Any]) -> Iterator[Row]:
    """Each heavy package: its version and the seconds of its import."""
    total = 0.0
    for name, each in found["imports"].items():
        if each["seconds"] is not None:
            total += each["seconds"]
            yield Row(name, f"{each['version']}, imported in {each['seconds']:.1f} s")
        elif name in WORKERS or each["fault"] != "missing":
            more = f"Run `{env.python} -c 'import {name}'` to see all of it."
            if each["fault"] == "missing":
                yield Row(name, "missing", "training needs it", install(env, [name]))
            else:
                yield Row(name, "broken", each["fault"], more)
    slow = total > SLOW_IMPORTS
    mend = "Put the env on another file system, or on the node's own disk." if slow else ""
    fault = "at the start of every job" if slow else ""
    yield Row("imports", f"{total:.1f} s on {found['host']}", fault, mend, grave=False)
