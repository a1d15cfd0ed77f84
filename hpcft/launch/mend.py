"""The mend: what to type after a bad ending, with numbers from the run's own recipe."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from hpcft.launch.cluster import Cluster
from hpcft.recipe import Recipe
from hpcft.schema import clock, memory_bytes, walltime_seconds

GIB = 1 << 30
UNUSED = 0.5
"""Share of the memory asked for up to which nobody was killed for want of it; Slurm samples twice a minute."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a bad ending."""

    reason: str
    state: str = ""
    """Slurm's word, `""` where it has none."""
    asked_memory: int | None = None
    """Bytes of host memory that the job had asked for, from accounting."""
    used_memory: int | None = None
    """Bytes that it used at most, as far as Slurm sampled it."""


def mend(name: str, recipe: Recipe, cluster: Cluster, evidence: Evidence, *, goes_on: bool) -> list[str]:
    """What helps, in lines; a command to paste where an override does."""
    if unused := _memory_unused(cluster, evidence):
        goes = (
            "The chain goes on by itself." if goes_on else f"`hpcft resume {name}` goes on from its newest checkpoint."
        )
        return [unused, goes]
    for states, pattern, make in MENDS:
        if evidence.state in states or re.search(pattern, evidence.reason):
            words, change = make(recipe, cluster, evidence)
            if change:
                return [words, f"  hpcft resume {name} --set {shlex.quote(change)}"]
            return [words.replace("hpcft resume RUN", f"hpcft resume {name}")]
    if goes_on:
        return ["The chain goes on by itself."]
    return [f"Once that is mended, `hpcft resume {name}` goes on from its newest checkpoint."]


def _memory_unused(cluster: Cluster, evidence: Evidence) -> str:
    """That memory was not what a worker was killed for, where that is known; `""` where it may have been."""
    if "killed from outside" not in evidence.reason or evidence.state == "OUT_OF_MEMORY":
        return ""
    if cluster.kind == "local":  # no job here has a bound on memory that more of it could lift
        return "Whoever killed it left no word; if it was the kernel, short of memory, `dmesg` says so."
    asked, used = evidence.asked_memory, evidence.used_memory
    if not asked or used is None or used > UNUSED * asked:
        return ""
    what = f"it used {used / GIB:.1f} GiB of the {asked / GIB:.0f} GiB that it had asked for"
    return f"Nothing points at memory: {what}. Somebody, or another program, killed it."


Made = tuple[str, str]
"""A sentence, and a `key=value` or nothing."""


def _micro_batch(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del cluster, evidence
    train, processes = recipe.train, recipe.processes
    now = 1 if train.micro_batch_size == "auto" else train.micro_batch_size
    for size in range(now // 2, 0, -1):
        if train.batch_size is None or train.batch_size % (size * processes) == 0:
            words = f"Fewer rows in a forward pass (now {now}) take less memory of the GPU:"
            return words, f"train.micro_batch_size={size}"
    return (
        "train.micro_batch_size is 1 already: it takes a larger GPU, or a new run with less data.max_length.",
        "",
    )


def _memory(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del cluster
    asked = memory_bytes(recipe.resources.memory) if recipe.resources.memory else evidence.asked_memory
    if not asked:
        return "More host memory, more than the job had: `hpcft resume RUN --set resources.memory=NG`.", ""
    more = math.ceil(1.5 * asked / GIB)
    return f"More host memory than the {asked / GIB:.0f} GiB that it had asked for:", f"resources.memory={more}G"


def _walltime(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del evidence
    limits = cluster.walltime_limits(recipe.resources.partition, recipe.resources.qos)
    most = next(iter(limits.values()), None)
    now = recipe.resources.walltime or most
    if now is None:
        return "A longer walltime: `hpcft resume RUN --set resources.walltime=H:MM:SS`.", ""
    seconds = 2 * walltime_seconds(now)
    seconds = min(seconds, walltime_seconds(most)) if most else seconds
    if seconds <= walltime_seconds(now):
        return f"The walltime is {now}, the longest here: a step and a save must take less.", ""
    return f"A longer walltime than {now}:", f"resources.walltime={clock(seconds)}"


def _rate(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del cluster, evidence
    rate = recipe.train.learning_rate
    return f"Look at the rows that it names. A lower learning rate than {rate:g}:", f"train.learning_rate={rate / 2:g}"


def _save(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del cluster, evidence
    every = recipe.train.save_every
    if every == "auto":
        return "It saves as often as pays, by what a save takes: write how often yourself.", "train.save_every=50"
    if every == 1:
        return "It saves after each step already: whoever ends its jobs must be asked.", ""
    return f"Saving more often than every {every} steps:", f"train.save_every={max(1, every // 2)}"


def _node(recipe: Recipe, cluster: Cluster, evidence: Evidence) -> Made:
    del recipe, cluster, evidence
    return "Nothing in the run is to blame, and the next job goes on from its newest checkpoint.", ""


MENDS: tuple[tuple[tuple[str, ...], str, Callable[[Recipe, Cluster, Evidence], Made]], ...] = (
    (("OUT_OF_MEMORY",), "host memory|killed from outside", _memory),
    ((), "the GPU ran out of memory", _micro_batch),
    (("TIMEOUT",), "walltime is too short|its walltime ended|when the walltime ended", _walltime),
    ((), "non-finite|infinite or no number", _rate),
    ((), "killed before they could save", _save),
    (("NODE_FAIL", "BOOT_FAIL", "PREEMPTED"), "its node failed|pushed it out|its node did not start", _node),
)
"""By Slurm's states and by words of the reason, the first that fits: who could say it better comes first."""
