"""Verbs about cluster files: which there are, what one says, and whether Slurm agrees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcft.cli.app import app
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.launch.cluster import ClusterFile

Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Name, or path to a file; the site that we are on if none.")
]
cluster_app = typer.Typer(
    help="List, show, check and draft cluster files.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(cluster_app, name="cluster")


@cluster_app.command("list")
def list_() -> None:
    """List all cluster files, and which is this site's."""
    from hpcft.launch.clustershow import print_clusters

    print_clusters()


@cluster_app.command()
def show(name: Name = None) -> None:
    """Print a cluster file with all that it takes from others."""
    from hpcft.launch.clustershow import resolved

    print(resolved(_find(name)))


@cluster_app.command()
def check(name: Name = None) -> None:
    """Hold a cluster file against what Slurm says."""
    from hpcft.launch.site import differences, unknown
    from hpcft.launch.site_names import name_differences
    from hpcft.launch.slurm_site import read_site

    file = _find(name)
    if file.cluster.kind == "local":
        print(f"{file.cluster.name} is this machine: there is no Slurm to ask.")
        return
    facts = read_site()
    if facts.partitions is None:
        raise UserError(Fault("sinfo", "did not answer.", "Run this on a login node of the cluster."))
    for line in unknown(facts):
        print(f"unknown: {line}")
    if faults := [*differences(file, facts), *name_differences(file, facts)]:
        raise UserError(faults)
    print(f"{file.cluster.name} agrees with Slurm.")


@cluster_app.command()
def init(
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write it there, if new.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="The one with GPUs if not given.")] = None,
) -> None:
    """Draft a cluster file from what Slurm says here."""
    from hpcft.launch.draft import draft
    from hpcft.launch.slurm_site import read_site

    text = draft(read_site(), partition)
    if out is None:
        print(text, end="")
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(Fault("-o", f"{out} cannot be written: {reason}.", "Name a new file.")) from None
    print(f"{out}: look it over, then `hpcft cluster check {out}`.")


def _find(name: str | None) -> ClusterFile:
    """The file of this name, or of the site that this machine belongs to."""
    from hpcft.launch.cluster import Choice, cluster_files, files_here, read_cluster_file

    if name is not None:
        return read_cluster_file(Choice(name, "NAME"))
    here = files_here()
    if len(here) == 1:
        return here[0]
    known = ", ".join(file.cluster.name for file in here) or ", ".join(sorted(cluster_files()))
    what = "several files name this machine in their hosts." if here else "no file names this machine in its hosts."
    raise UserError(Fault("NAME", what, f"Name one: {known}."))
