"""What a person sees of cluster files: the table of all, and one with the place of each key."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from hpcft.errors import UserError
from hpcft.launch.cluster import SHIPPED, Choice, Cluster, ClusterFile, cluster_files, read_cluster_file
from hpcft.launch.show import console
from hpcft.yamlfile import yaml_line

SHORT = 48
"""Characters of a line that still counts for the column of the comments."""


def print_clusters() -> None:
    """A table of all known cluster files."""
    table = Table("cluster", "from", "GPU", "walltime", "here")
    for name, path in sorted(cluster_files().items()):
        source = "hpcft" if path.parent == SHIPPED else "you"
        try:
            cluster = read_cluster_file(Choice(name, "hpcft cluster list")).cluster
        except UserError as error:
            faults = len(error.faults)
            words = f"{faults} fault{'s' if faults > 1 else ''}: hpcft cluster show {name}"
            table.add_row(name, source, words, "", "")
            continue
        walltime = next(iter(cluster.walltime_limits().values()), "-")
        here = "yes" if cluster.kind == "local" or cluster.is_here() else "" if cluster.hosts else "?"
        table.add_row(name, source, _gpus(cluster), walltime, here)
    console.print(table)


def resolved(file: ClusterFile) -> str:
    """The file as it counts, in YAML that reads as such; behind each key, the file and line that it is from."""
    values = file.cluster.model_dump(mode="json", exclude_defaults=True)
    lines = {key: yaml_line(key, value) for key, value in values.items()}
    width = max(len(line) for line in lines.values() if len(line) <= SHORT)
    places = {key: Path(file.places[key]).name for key in lines if key in file.places}
    rows = (f"{line:{width}}  # {places[key]}" if key in places else line for key, line in lines.items())
    return "\n".join((f"# {file.path}", *rows))


def _gpus(cluster: Cluster) -> str:
    if not cluster.gpus_per_node:
        return "-"
    memory = f" {cluster.gpu_memory:g} GiB" if cluster.gpu_memory else ""
    return f"{cluster.gpus_per_node} x {cluster.gpu or 'GPU'}{memory}"
