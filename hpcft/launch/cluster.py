"""A cluster: what one site is like, read from a YAML file; no site's name stands in code."""

from __future__ import annotations

import getpass
import grp
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.recipefile import is_path
from hpcft.schema import (
    Constraint,
    Count,
    GpuRequest,
    Memory,
    Nodes,
    Option,
    OptionValue,
    Section,
    SlurmName,
    Walltime,
    expand,
    explain,
    walltime_seconds,
)
from hpcft.yamlfile import place, read_yaml

SHIPPED = Path(__file__).parent / "clusters"
PLACES = ("partition", "account", "qos", "constraint", "reservation")
"""Where jobs run and who pays: keys of the file, since limits are known by them."""
MEMORY_RULES = ("memory_per_gpu", "memory_per_cpu", "memory_per_node")
OWN_OPTIONS = {
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node"), "The recipe says `resources.nodes`."),
    "time": "The recipe says `resources.walltime`.",
    "exclude": "Write `exclude: [...]`.",
    **{key: f"Write `{key}: ...`, outside of options." for key in PLACES},
    "requeue": "Write `preemption: requeue`.",
    **dict.fromkeys(
        ("array", "comment", "dependency", "error", "hold", "job-name", "open-mode", "output", "signal", "wrap"),
        "Remove it.",
    ),
}
"""sbatch options that hpcft sets itself, and what to write instead."""


class Cluster(Section):
    """One site. What a site does not say is left out, not guessed."""

    extends: str | None = None
    """Another cluster, by name or path: its keys count where this file has none. A file that extends its own name
    goes on from the shipped one."""
    name: str
    """The file's name without .yaml when not given."""
    kind: Literal["slurm", "local"]
    """`local` is this machine, without Slurm."""
    hosts: tuple[str, ...] = ()
    """Patterns of its login nodes' names, `login*.leonardo.local`: there, another site's file is refused."""
    runs: str
    """Folder of all runs; `$VARIABLES` are filled in, and `$GROUP` is the user's primary group."""
    cache: str | None = None
    """Folder of models and data from the hub, on scratch: home is small. HF_HOME when not given."""
    envs: str | None = None
    """Folder of conda environments and their packages, on scratch: home is small."""
    node_tmp: str | None = None
    """Folder on the node's own disk that a job may fill, `$SLURM_TMPDIR`."""
    quota: Memory | None = None
    """What a user may fill where runs lie."""
    purge_days: Count | None = None
    """Days after which the site deletes files there that nobody touched."""
    partition: SlurmName | None = None
    """The site's default one when not given. This and the next three give way to those in a recipe's resources."""
    account: SlurmName | None = None
    """What the jobs are billed to."""
    qos: SlurmName | None = None
    """Quality of service."""
    constraint: Constraint | None = None
    """Features that the nodes must have, `v100-32g`."""
    account_needed: bool = False
    """Whether sbatch refuses jobs without an account."""
    reservation: SlurmName | None = None
    """Nodes set aside for a course or a project."""
    exclude: tuple[Nodes, ...] = ()
    """Nodes never to be used, `[gpu003, gpu[007-009]]`."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs of one node."""
    gpu: str | None = None
    """The card, for messages: `V100`."""
    gpu_arch: str | None = None
    """What torch must have been built for, `sm_70`."""
    gpu_memory: Annotated[float, Field(gt=0)] | None = None
    """GiB of one card."""
    bf16: bool = True
    """Whether the card computes in bf16; torch emulates it on a V100 and says that it does not."""
    gpu_request: GpuRequest | None = None
    """The sbatch option that asks for GPUs, with `{gpus}` for their number: `gres=gpu:V100:{gpus}`,
    `gpus-per-node={gpus}`, `gpus=v100-32:{gpus}` (of all nodes together); or `whole-nodes` where jobs get all GPUs
    of a node without asking."""
    cpus_per_node: Count | None = None
    """Cores of one node."""
    cpus_per_gpu: Count | None = None
    """Cores to ask for with each GPU; not given where the site hands them out itself."""
    memory_per_gpu: Memory | None = None
    """Host memory to ask for with each GPU as Slurm writes it, `60G`. Of these three, one at most."""
    memory_per_cpu: Memory | None = None
    """Host memory to ask for with each core."""
    memory_per_node: Memory | None = None
    """Host memory to ask for on each node."""
    max_walltime: Walltime | None = None
    """Longest job of this user there, by association or qos, which may be shorter than the partition's limit."""
    partition_walltime: Walltime | None = None
    """Longest job of the partition."""
    max_submit: Count | None = None
    """Jobs that one user may have in the queue."""
    jobs_may_submit: bool = True
    """Whether sbatch works on compute nodes; where not, the whole chain is queued at once."""
    internet: bool = True
    """Whether compute nodes reach the hub."""
    pip_on_gpu_node: bool = False
    """Whether the pip part of an env is installed in a GPU job."""
    preemption: Literal["requeue", "cancel"] | None = None
    """What the site does with jobs of this partition that others push out; `requeue` lets Slurm queue them again."""
    stop_margin: Annotated[float, Field(ge=0)] = 10.0
    """Seconds to spare between the end of the last save and the end of the job."""
    setup: tuple[str, ...] = ()
    """Shell lines before the batch process, such as `module load`; the only keys that a shell reads."""
    options: dict[Option, OptionValue] = Field(default_factory=dict)
    """More sbatch options, `mail-type: FAIL`; an empty text for one that takes no value, `contiguous: ""`."""
    debug_options: dict[Option, OptionValue] = Field(default_factory=dict)
    """What `hpcft debug` and `hpcft env check` ask for instead, `partition: debug`."""
    transfer_options: dict[Option, OptionValue] = Field(default_factory=dict)
    """What `hpcft fetch` asks for where login nodes must not download, `partition: prepost`."""
    tensorboard_options: dict[Option, OptionValue] = Field(default_factory=dict)
    """What `hpcft tensorboard --on-node` asks for where login nodes must not serve, `partition: serial`; without it two
    cores where the run's jobs run."""

    def walltime_limits(self, partition: str | None = None, qos: str | None = None) -> dict[str, str]:
        """What limits one job, and to how long: `{"your association": "2:00:00"}`; the shortest first.

        Of a partition other than the file's own its limit is not known, and nothing is of another qos: its own limit
        counts before the association's, and it may pass the partition's.
        """
        if qos not in (None, self.qos):
            return {}
        limits = {"your association": self.max_walltime}
        if partition in (None, self.partition):
            limits[f"the partition {self.partition}" if self.partition else "the partition"] = self.partition_walltime
        known = {who: text for who, text in limits.items() if text}
        return dict(sorted(known.items(), key=lambda item: walltime_seconds(item[1])))

    def is_here(self) -> bool:
        """Whether this machine is one of its login nodes, as far as `hosts` tells."""
        return any(fnmatch(socket.gethostname(), pattern) for pattern in self.hosts)

    def folder(self, key: Literal["runs", "cache", "envs"]) -> Path | None:
        """A folder of this site, None if it names none. Raises UserError if a variable in it has no value."""
        text: str | None = getattr(self, key)
        if text is None:
            return None
        try:
            group = grp.getgrgid(os.getgid()).gr_name
        except KeyError:
            group = str(os.getgid())
        values = {"GROUP": group, "USER": getpass.getuser(), **os.environ}
        try:
            return expand(Template(text).substitute(values))
        except (KeyError, ValueError) as error:
            lacking = f"${error.args[0]} has no value here" if isinstance(error, KeyError) else "a $ stands alone in it"
            fix = "Name a folder with --runs or HPCFT_RUNS." if key == "runs" else "Write a whole path there."
            raise UserError(Fault(f"cluster {self.name}", f'{key} = "{text}": {lacking}.', fix)) from None

    def runs_folder(self) -> Path:
        """Where runs lie. Raises UserError if a variable in it has no value."""
        folder = self.folder("runs")
        assert folder is not None
        return folder


@dataclass(frozen=True)
class Choice:
    """Where a cluster was asked for, to point at it in a message."""

    name: str
    where: str


@dataclass(frozen=True)
class ClusterFile:
    """A cluster with what is needed to point at the line of a fault, be it in the file or in one that it extends."""

    path: Path
    cluster: Cluster
    places: Mapping[str, str]
    """`site.yaml:7` by dotted key."""

    def where(self, key: str) -> str:
        """The place of a key, or of what it stands in, or else the file."""
        return _nearest(self.places, key, self.path)


def user_folder() -> Path:
    """Where the user's own files lie."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hpcft" / "clusters"


def cluster_files() -> dict[str, Path]:
    """Every known cluster by name; the user's own folder wins over what is shipped."""
    folders = [SHIPPED, user_folder()]
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))}


def files_here() -> list[ClusterFile]:
    """The files that name this machine among their hosts, but for those with faults."""
    found = []
    for name in cluster_files():
        try:
            file = read_cluster_file(Choice(name, name))
        except UserError:
            continue  # said when it is asked for
        found += [file] if file.cluster.is_here() else []
    return found


def read_cluster(choice: Choice) -> Cluster:
    """The cluster of this name or path. Raises UserError: unknown name, faults in the file."""
    return read_cluster_file(choice).cluster


def read_cluster_file(choice: Choice) -> ClusterFile:
    """The cluster of this name or path, with its places. Raises UserError: unknown name, faults in the file."""
    path = _find(choice, Path())
    values, places = _read(path, choice.where, ())
    where = partial(_nearest, places, path=path)
    cluster = cluster_from(values, path, where)
    if faults := list(_contradictions(cluster, where)):
        raise UserError(faults)
    return ClusterFile(path, cluster, places)


def cluster_from(values: Mapping[str, Any], path: Path, where: Callable[[str], str] | None = None) -> Cluster:
    """The cluster in these values. Raises UserError with every fault in them."""
    try:
        return Cluster.model_validate_json(json.dumps({"name": path.stem, **values}, default=str))
    except ValidationError as error:
        raise UserError(explain(error, where or partial(place, path, {}), Cluster)) from None


def _find(choice: Choice, folder: Path) -> Path:
    """The file of this name, or at this path, which may be relative to a folder."""
    known = cluster_files()
    path = folder / expand(choice.name) if is_path(choice.name) else known.get(choice.name)
    if path is None:
        raise UserError(Fault(choice.where, f'no cluster "{choice.name}".', did_you_mean(choice.name, list(known))))
    return path


def _read(path: Path, where: str, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of a file over those of the one it extends, and the place of each."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        fix = f"Clusters known by name: {', '.join(sorted(cluster_files()))}."
        raise UserError(Fault(where, f"{path} cannot be read: {reason}.", fix)) from None
    values, lines = read_yaml(path, text)
    places = {key: place(path, lines, key) for key in lines}
    extends = values.pop("extends", None)
    if extends is None:
        return values, places
    here = place(path, lines, "extends")
    if not isinstance(extends, str):
        raise UserError(Fault(here, "extends names no cluster.", "Write the name of one, or a path to its file."))
    above = (*above, path.resolve())
    base = _find(Choice(extends, here), path.parent)
    if base.resolve() in above:  # the user's own file of a shipped one's name
        base = SHIPPED / f"{extends}.yaml"
    if base.resolve() in above or not base.exists():
        raise UserError(Fault(here, f'extends = "{extends}" is this file itself.', "Name another one."))
    inherited, inherited_places = _read(base, here, above)
    inherited.pop("name", None)
    # A key replaces the other's as a whole, so that `options: {}` takes its options away.
    kept = {key: at for key, at in inherited_places.items() if key.partition(".")[0] not in values}
    return {**inherited, **values}, {**kept, **places}


def _nearest(places: Mapping[str, str], key: str, path: Path) -> str:
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key, f"{path}:1")


def _contradictions(cluster: Cluster, where: Callable[[str], str]) -> Iterator[Fault]:
    """What no single key shows to be wrong."""
    given = [key for key in MEMORY_RULES if getattr(cluster, key)]
    for key in given[1:]:
        yield Fault(where(key), f"{given[0]} and {key} are both given.", "Keep one of them.")
    for key in cluster.options:
        if fix := OWN_OPTIONS.get(key):
            yield Fault(where(f"options.{key}"), f"options.{key} is set by hpcft itself.", fix)
    for section in ("debug_options", "transfer_options", "tensorboard_options"):
        for key in getattr(cluster, section):
            if key in OWN_OPTIONS and key not in ("time", "exclude", *PLACES):  # these are theirs to choose
                yield Fault(where(f"{section}.{key}"), f"{section}.{key} is set by hpcft itself.", "Remove it.")
    if cluster.kind == "local":
        return
    if cluster.gpus_per_node and cluster.cpus_per_node and cluster.cpus_per_gpu:
        cores = cluster.gpus_per_node * cluster.cpus_per_gpu
        if cores > cluster.cpus_per_node:
            what = f"cpus_per_gpu = {cluster.cpus_per_gpu} makes {cores} cores for {cluster.gpus_per_node} GPUs"
            fix = f"Write {cluster.cpus_per_node // cluster.gpus_per_node} at most."
            yield Fault(where("cpus_per_gpu"), f"{what}; a node has {cluster.cpus_per_node}.", fix)
