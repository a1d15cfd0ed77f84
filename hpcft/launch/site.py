"""The site: what a cluster file says held against what Slurm says, and a draft of such a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hpcft.errors import Fault, did_you_mean
from hpcft.launch.cluster import MEMORY_RULES, Cluster, ClusterFile
from hpcft.launch.fit import core_faults
from hpcft.launch.slurm_site import Association, Limits, Nodes, Partition, SiteFacts
from hpcft.launch.submission import job_walltime, slurm_options
from hpcft.recipefile import RecipeFile
from hpcft.schema import clock, memory_bytes, walltime_seconds

GPU_KIND = re.compile(r"(?:gpu:)?(?:([^:,=]+):)?\{gpus\}")
FEATURE = re.compile(r"[A-Za-z0-9][\w.:@+-]*", re.ASCII)
MIB = 1 << 20
PREEMPTION = {"OFF": None, "REQUEUE": "requeue", "CANCEL": "cancel"}


def impossible(file: RecipeFile, site: ClusterFile, partitions: dict[str, Partition]) -> Iterator[Fault]:
    """Every reason why no node of the partition can ever run this recipe's jobs.

    Where no partition is named, a site's own rules may choose any: then it is what no node at all can run.

    Slurm itself says it too late: it looks at a job that is submitted held only when it is released, and then lets it
    wait for ever.
    """
    resources, cluster = file.recipe.resources, site.cluster
    mine = resources.partition is not None
    where = file.where("resources.partition") if mine else site.where("partition")
    key = "resources.partition" if mine else "partition"
    chosen = _partition_faults(where, key, resources.partition or cluster.partition, partitions)
    faults = [part for part in chosen if isinstance(part, Fault)]
    yield from faults
    nodes = [kind for part in chosen if isinstance(part, Partition) for kind in part.nodes]
    if faults or not nodes:
        return
    if len(chosen) == 1 and isinstance(chosen[0], Partition):
        yield from _too_long(file, cluster, chosen[0])
    if resources.gpus:
        wrong = list(_gpu_kind_faults(site, nodes))
        yield from wrong
        most = most_gpus(nodes, gpu_kind(cluster))
        if not wrong and resources.gpus > most:
            what = f"resources.gpus = {resources.gpus}: the nodes there have {most}."
            yield Fault(file.where("resources.gpus"), what, f"Ask for {most} at most.")
    # A job runs in one partition, whichever of several Slurm takes; and a node may be in more than one.
    total = max(sum(kind.number for kind in part.nodes) for part in chosen if isinstance(part, Partition))
    if resources.nodes > total:
        there = "the partition" if len(chosen) == 1 else "the largest partition"
        what = f"resources.nodes = {resources.nodes}: {there} has {total}."
        yield Fault(file.where("resources.nodes"), what, f"Ask for {total} at most.")
    yield from _size_faults(file, site, nodes)
    place = file.where("resources.constraint") if resources.constraint else site.where("constraint")
    yield from _feature_faults(place, resources.constraint or cluster.constraint, nodes)


def _too_long(file: RecipeFile, cluster: Cluster, partition: Partition) -> Iterator[Fault]:
    """That a job is longer than its partition allows; a qos may allow more (Slurm's flag PartitionTimeLimit)."""
    if partition.walltime is None or file.recipe.resources.qos or cluster.qos:
        return
    if job_walltime(file.recipe, cluster) > partition.walltime:
        what = f"a job of {clock(job_walltime(file.recipe, cluster))} is longer than the partition {partition.name}"
        most = clock(partition.walltime)
        yield Fault(file.where("resources.walltime"), f"{what} allows, {most}.", f'Write "{most}" at most.')


def _size_faults(file: RecipeFile, site: ClusterFile, nodes: Sequence[Nodes]) -> Iterator[Fault]:
    """That no node has as many cores, or as much memory."""
    resources = file.recipe.resources
    options = slurm_options(file.recipe, site.cluster)
    cores, most_cores = int(options.get("cpus-per-task", 1)), max(kind.cpus for kind in nodes)
    own = list(core_faults(file, most_cores, f"those there have {most_cores}"))
    yield from own
    if cores > most_cores and not own:
        what = f"each node would have to give {cores} cores, and has {most_cores}."
        place = "cpus_per_gpu" if resources.gpus and site.cluster.cpus_per_gpu else "options"
        yield Fault(site.where(place), what, "Ask for fewer for each process.")
    memory, most_memory = _memory(options, resources.gpus, cores), max(kind.memory for kind in nodes)
    if memory > most_memory:
        what = f"each node would have to give {_gigabytes(memory)} of memory, and has {_gigabytes(most_memory)}."
        rule = next((key for key in MEMORY_RULES if getattr(site.cluster, key)), "options")
        yield Fault(file.where("resources.memory") if resources.memory else site.where(rule), what, "Ask for less.")


def differences(site: ClusterFile, facts: SiteFacts) -> Iterator[Fault]:
    """Everything that a cluster file says otherwise than Slurm, each with its mend."""
    cluster, where = site.cluster, site.where
    assert facts.partitions is not None  # whoever asks has seen to it
    # Without a name there is none to hold against Slurm's: a site's own rules may choose by what the job asks for.
    named = cluster.partition is not None
    chosen = _partition_faults(where("partition"), "partition", cluster.partition, facts.partitions) if named else []
    known = [part for part in chosen if isinstance(part, Partition)]
    yield from (part for part in chosen if isinstance(part, Fault))
    for part in known:
        yield from _node_differences(site, part)
        asked, who = cluster.partition_walltime, f"the partition {part.name}"
        yield from _walltime_difference(where("partition_walltime"), "partition_walltime", asked, part.walltime, who)
        there = PREEMPTION.get(part.preemption)
        if cluster.preemption and part.preemption in PREEMPTION and there != cluster.preemption:
            what = f"preemption = {cluster.preemption}: Slurm says {part.preemption} of {part.name}."
            yield Fault(where("preemption"), what, f"Write {there}." if there else "Remove it.")
    yield from _account_differences(site, facts)
    billed = not cluster.account or any(each.account == cluster.account for each in facts.associations or ())
    if billed and (known or not named):
        yield from _limit_differences(site, limits(cluster, facts, known[0].name if known else None), facts)


def unknown(facts: SiteFacts) -> list[str]:
    """What Slurm did not say, so that nothing can be held against it."""
    silent = "this Slurm has no accounting that answers"
    said = []
    if not facts.associations:
        why = silent if facts.associations is None else "its accounts do not know you"
        said.append(f"account, max_walltime and max_submit: {why}")
    if not facts.qos:
        said.append(f"qos: {silent}")
    return said


def gpu_kind(cluster: Cluster) -> str:
    """The type of GPU in its request, `V100`; empty where it names none."""
    match = GPU_KIND.search((cluster.gpu_request or "").partition("=")[2])
    return match[1] or "" if match else ""


def most_gpus(nodes: Sequence[Nodes], kind: str) -> int:
    """GPUs of this type on the node that has most; of all types where it is empty."""
    return max((node.gpus.get(kind, 0) if kind else sum(node.gpus.values()) for node in nodes), default=0)


def limits(cluster: Cluster, facts: SiteFacts, partition: str | None) -> Limits:
    """What binds this user's jobs there: each limit is the qos's, or the association's where the qos sets none."""
    mine = _associations(cluster, facts, partition)
    allowed = [name for each in mine for name in each.qos]
    default = next((each.default_qos for each in mine if each.default_qos), allowed[0] if len(allowed) == 1 else None)
    chosen = cluster.qos if cluster.qos in allowed else default
    found = [each.limits for each in mine]
    if facts.qos and chosen in facts.qos:
        found.insert(0, facts.qos[chosen])
    return Limits(  # Slurm takes the first that is set, and looks at the qos before the association
        next((each.walltime for each in found if each.walltime is not None), None),
        next((each.submit for each in found if each.submit is not None), None),
    )


def _partition_faults(
    where: str, key: str, names: str | None, partitions: dict[str, Partition]
) -> list[Fault | Partition]:
    """The partitions of this name or these, all where none is named; a fault in the place of each that there is not."""
    if names is None:
        return list(partitions.values())
    return [
        partitions.get(name)
        or Fault(where, f'{key} = "{name}": Slurm has no such partition.', did_you_mean(name, list(partitions)))
        for name in names.split(",")
    ]


def _gpu_kind_faults(site: ClusterFile, nodes: Sequence[Nodes]) -> Iterator[Fault]:
    kinds = sorted({kind for node in nodes for kind in node.gpus})
    wanted, request = gpu_kind(site.cluster), site.cluster.gpu_request
    where = site.where("gpu_request" if request else "partition")
    if not kinds:
        yield Fault(where, "no node there has a GPU.", "Name another partition.")
    elif wanted and wanted not in kinds:
        yield Fault(
            where, f'gpu_request = "{request}": its nodes have no GPU of this type.', did_you_mean(wanted, kinds)
        )


def _feature_faults(where: str, constraint: str | None, nodes: Sequence[Nodes]) -> Iterator[Fault]:
    features = sorted({feature for node in nodes for feature in node.features})
    for name in FEATURE.findall(re.sub(r"\*\d+", "", constraint or "")):
        if name not in features:
            fix = did_you_mean(name, features) if features else "Remove it: they have none at all."
            yield Fault(where, f'constraint = "{constraint}": no node there has the feature {name}.', fix)


def _node_differences(site: ClusterFile, partition: Partition) -> Iterator[Fault]:
    cluster, where, nodes = site.cluster, site.where, partition.nodes
    if not nodes:
        yield Fault(where("partition"), f"the partition {partition.name} has no nodes.", "Name another one.")
        return
    most_cores = max(node.cpus for node in nodes)
    if cluster.cpus_per_node and cluster.cpus_per_node != most_cores:
        what = f"cpus_per_node = {cluster.cpus_per_node}: the nodes of {partition.name} have {most_cores}."
        yield Fault(where("cpus_per_node"), what, f"Write {most_cores}.")
    yield from _feature_faults(where("constraint"), cluster.constraint, nodes)
    if cluster.gpus_per_node == 0:
        return
    wrong = list(_gpu_kind_faults(site, nodes))
    yield from wrong
    most = most_gpus(nodes, gpu_kind(cluster))
    if wrong:
        return
    if cluster.gpus_per_node and cluster.gpus_per_node != most:
        what = f"gpus_per_node = {cluster.gpus_per_node}: the nodes of {partition.name} have {most}."
        yield Fault(where("gpus_per_node"), what, f"Write {most}.")
    if cluster.cpus_per_gpu and cluster.cpus_per_gpu * most > most_cores:
        what = f"cpus_per_gpu = {cluster.cpus_per_gpu}: a node has {most_cores} cores for {most} GPUs."
        yield Fault(where("cpus_per_gpu"), what, f"Write {most_cores // most} at most.")
    most_memory = max(node.memory for node in nodes)
    for key, number in (("memory_per_gpu", most), ("memory_per_cpu", most_cores), ("memory_per_node", 1)):
        text = getattr(cluster, key)
        if text and (memory_bytes(text) or 0) * number > most_memory * MIB:
            what = f'{key} = "{text}": a node has {_gigabytes(most_memory)} in all.'
            yield Fault(where(key), what, f'Write "{int(most_memory / number)}M" at most.')


def _account_differences(site: ClusterFile, facts: SiteFacts) -> Iterator[Fault]:
    cluster, where = site.cluster, site.where
    if not facts.associations:
        return
    accounts = sorted({each.account for each in facts.associations})
    if cluster.account and cluster.account not in accounts:
        what = f'account = "{cluster.account}": Slurm knows no such account of yours.'
        yield Fault(where("account"), what, did_you_mean(cluster.account, accounts))
        return
    if cluster.account_needed and not cluster.account:
        what = "account_needed is true, and no account is named."
        yield Fault(where("account_needed"), what, f"Write `account: ...` with one of {', '.join(accounts)}.")
    mine = _associations(cluster, facts, cluster.partition)
    qos = sorted({name for each in mine for name in each.qos})
    if cluster.qos and qos and cluster.qos not in qos:
        what = f'qos = "{cluster.qos}": your account may not use it.'
        yield Fault(where("qos"), what, did_you_mean(cluster.qos, qos))


def _limit_differences(site: ClusterFile, bound: Limits, facts: SiteFacts) -> Iterator[Fault]:
    cluster, where = site.cluster, site.where
    if not facts.associations:
        return
    yield from _walltime_difference(
        where("max_walltime"), "max_walltime", cluster.max_walltime, bound.walltime, "your association or qos"
    )
    if cluster.max_submit and bound.submit is None:
        what = f"max_submit = {cluster.max_submit}: Slurm says no limit of yours."
        yield Fault(where("max_submit"), what, "Remove it.")
    elif bound.submit is not None and cluster.max_submit != bound.submit:
        given = f"max_submit = {cluster.max_submit}" if cluster.max_submit else "max_submit is missing"
        yield Fault(
            where("max_submit"), f"{given}: Slurm takes {bound.submit} jobs of yours.", f"Write {bound.submit}."
        )


def _walltime_difference(where: str, key: str, text: str | None, longest: int | None, who: str) -> Iterator[Fault]:
    given = f'{key} = "{text}"' if text else f"{key} is missing"
    if text and longest is None:
        yield Fault(where, f"{given}: {who} has no limit.", "Remove it.")
    elif longest is not None and (text is None or walltime_seconds(text) != longest):
        yield Fault(where, f"{given}: {who} allows {clock(longest)}.", f'Write "{clock(longest)}".')


def _associations(cluster: Cluster, facts: SiteFacts, partition: str | None) -> list[Association]:
    """Those that a job of this cluster would fall under, the partition's own first."""
    known = facts.associations or ()
    account = cluster.account or facts.default_account
    mine = [each for each in known if account in (None, each.account)]
    return sorted((each for each in mine if each.partition in ("", partition)), key=lambda each: not each.partition)


def _memory(options: dict[str, str], gpus: int, cores: int) -> float:
    """MiB that a job asks of each node."""
    rules = (("mem", 1), ("mem-per-gpu", gpus), ("mem-per-cpu", cores))
    # What stands in `options` may be written in a way that only sbatch knows, which is left to it.
    return max(((memory_bytes(options[key]) or 0) * number / MIB for key, number in rules if key in options), default=0)


def _gigabytes(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.0f}G"
