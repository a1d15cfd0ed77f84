"""The verb that shows curves in TensorBoard, on this node or from a small job."""

from __future__ import annotations

from typing import Annotated

import typer

from hpcft.cli.app import ClusterName, RunNames, Runs, app, choose, runs_folder
from hpcft.errors import Fault, UserError


@app.command()
def tensorboard(
    names: RunNames = None,
    runs: Runs = None,
    port: Annotated[int | None, typer.Option("--port", help="A free one if not given.")] = None,
    on_node: Annotated[
        bool, typer.Option("--on-node", help="In a small job of its own, where login nodes must not serve.")
    ] = False,
    walltime: Annotated[str | None, typer.Option("--walltime", help="How long that may last, 2:00:00.")] = None,
    cluster: ClusterName = None,
) -> None:
    """Show curves in TensorBoard, by job and stitched. It follows runs that go on; Ctrl-C ends it."""
    from functools import partial

    from hpcft.curves.serve import runs_in, serve
    from hpcft.curves.server import login_name, print_links

    _check_options(on_node, walltime, cluster)
    root = runs_folder(runs)
    chosen = choose(root, names)
    if not chosen:
        raise UserError(Fault(str(root), "holds no run.", "Name another folder with --runs or HPCFT_RUNS."))
    named = [run.name for run in chosen] if names else []
    login = login_name()
    if on_node:
        from hpcft.launch import tensorboard as there
        from hpcft.launch.cluster import Choice, read_cluster

        other = read_cluster(Choice(cluster, "--cluster")) if cluster else None
        words = (str(root), login, str(port or ""), *named)
        raise typer.Exit(there.show_from(there.find_place(chosen, other, walltime, words)))
    try:
        serve(runs_in(root, named), partial(print_links, login=login), port)
    except RuntimeError as error:
        raise UserError(Fault("tensorboard", " ".join(str(error).split()))) from None


def _check_options(on_node: bool, walltime: str | None, cluster: str | None) -> None:
    """Raise UserError with all options that do not fit."""
    from hpcft.schema import walltime_seconds

    faults = []
    for option, given in (("--walltime", walltime), ("--cluster", cluster)):
        if given and not on_node:
            faults.append(Fault(option, "goes with --on-node.", "Add it, or leave this out."))
    try:
        walltime_seconds(walltime or "1:00")
    except ValueError as error:
        faults.append(Fault("--walltime", f"{error}.", "Write hours:minutes:seconds, as 2:00:00."))
    if faults:
        raise UserError(faults)
