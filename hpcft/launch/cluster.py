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
    runs: str
    """Folder of all runs; `$VARIABLES` are filled in, and `$GROUP` is the user's primary group."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    gpu: str | None = None
    """The card, for messages: `V100`."""
    bf16: bool = True
    """Whether the card computes in bf16; torch emulates it on a V100 and says that it does not."""
    gpu_request: GpuRequest | None = None
    """The sbatch option that asks for GPUs, `gres=gpu:V100:{gpus}`."""
    cpus_per_gpu: Count | None = None
    memory_per_gpu: Memory | None = None
    """Host memory for each GPU as Slurm writes it, `60G`."""
    max_walltime: Walltime | None = None
    """Longest job of this user there, which may be shorter than the partition's limit."""
    max_submit: Count | None = None
    """Jobs that one user may have in the queue."""
    jobs_may_submit: bool = True
    """Whether sbatch works on compute nodes; where not, the whole chain is queued at once."""
    internet: bool = True
    """Whether compute nodes reach the hub."""
    stop_margin: Annotated[float, Field(ge=0)] = 10.0
    """Seconds to spare between the end of the last save and the end of the job."""
    setup: tuple[str, ...] = ()
    """Shell lines before the batch process, such as `module load`."""
    options: dict[str, str] = Field(default_factory=dict)
    """More sbatch options, `exclude: gpu003`."""
    debug_options: dict[str, str] = Field(default_factory=dict)
    """What `hpcft debug` asks for instead, `partition: debug`."""

    def runs_folder(self) -> Path:
        """Where runs lie. Raises UserError if a variable in it has no value."""
        try:
            group = grp.getgrgid(os.getgid()).gr_name
        except KeyError:
            group = str(os.getgid())
        values = {"GROUP": group, "USER": getpass.getuser(), **os.environ}
        try:
            return expand(Template(self.runs).substitute(values))
        except (KeyError, ValueError) as error:
            lacking = f"${error.args[0]} has no value here" if isinstance(error, KeyError) else "a $ stands alone in it"
            what, fix = f'runs = "{self.runs}": {lacking}.', "Name a folder with --runs or HPCFT_RUNS."
            raise UserError(Fault(f"cluster {self.name}", what, fix)) from None


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
