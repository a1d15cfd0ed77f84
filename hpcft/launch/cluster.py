"""A cluster: what one site is like, read from a YAML file; no site's name stands in code."""

from __future__ import annotations

import getpass
import grp
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hpcft.errors import Fault, UserError, did_you_mean
from hpcft.recipe import is_path
from hpcft.schema import Count, GpuRequest, Memory, Section, Walltime, expand, explain, place, read_yaml

SHIPPED = Path(__file__).parent / "clusters"


class Cluster(Section):
    """One site. What a site does not say is left out, not guessed."""

    name: str
    kind: Literal["slurm", "local"]
    hosts: tuple[str, ...] = ()
    """Patterns of its login nodes' names, `login*.leonardo.local`: to say when another site's file is used there."""
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
    partition: str | None = None
    account: str | None = None
    account_needed: bool = False
    """Whether sbatch refuses jobs without one."""
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    gpu: str | None = None
    """The card, for messages: `V100`."""
    gpu_arch: str | None = None
    """What torch must have been built for, `sm_70`."""
    gpu_memory: Annotated[float, Field(gt=0)] | None = None
    """GiB of one card."""
    bf16: bool = True
    """Whether the card computes in bf16; torch emulates it on a V100 and says that it does not."""
    gpu_request: GpuRequest | None = None
    """The sbatch option that asks for GPUs, `gres=gpu:V100:{gpus}`."""
    cpus_per_gpu: Count | None = None
    """Not given where the site hands them out itself."""
    memory_per_gpu: Memory | None = None
    """Host memory for each GPU as Slurm writes it, `60G`."""
    memory_per_cpu: Memory | None = None
    memory_per_node: Memory | None = None
    """Of these three, one at most."""
    max_walltime: Walltime | None = None
    """Longest job of this user there, by the association, which may be shorter than the partition's limit."""
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
    """What the site does with jobs of this partition that others push out."""
    exclude: tuple[str, ...] = ()
    """Nodes never to be used."""
    stop_margin: Annotated[float, Field(ge=0)] = 10.0
    """Seconds to spare between the end of the last save and the end of the job."""
    setup: tuple[str, ...] = ()
    """Shell lines before the batch process, such as `module load`."""
    options: dict[str, str] = Field(default_factory=dict)
    """More sbatch options, `exclude: gpu003`."""
    debug_options: dict[str, str] = Field(default_factory=dict)
    """What `hpcft debug` and `hpcft env check` ask for instead, `partition: debug`."""
    transfer_options: dict[str, str] = Field(default_factory=dict)
    """What `hpcft fetch` asks for where login nodes must not download, `partition: prepost`."""

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


def cluster_files() -> dict[str, Path]:
    """Every known cluster by name; the user's own folder wins over what is shipped."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "hpcft" / "clusters"
    folders = [SHIPPED, home]
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))}


def read_cluster(choice: Choice) -> Cluster:
    """The cluster of this name or path. Raises UserError: unknown name, faults in the file."""
    known = cluster_files()
    path = expand(choice.name) if is_path(choice.name) else known.get(choice.name)
    if path is None:
        raise UserError(Fault(choice.where, f'no cluster "{choice.name}".', did_you_mean(choice.name, list(known))))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        fix = f"Clusters known by name: {', '.join(sorted(known))}."
        raise UserError(Fault(choice.where, f"{path} cannot be read: {reason}.", fix)) from None
    values, lines = read_yaml(path, text)
    return cluster_from(values, path, lines)


def cluster_from(values: Mapping[str, object], path: Path, lines: dict[str, int] | None = None) -> Cluster:
    """The cluster in these values. Raises UserError with every fault in them."""
    try:
        return Cluster.model_validate_json(json.dumps({"name": path.stem, **values}, default=str))
    except ValidationError as error:
        raise UserError(explain(error, partial(place, path, lines or {}), Cluster)) from None
