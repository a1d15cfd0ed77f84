"""The verb that opens a shell where a job would run."""

from __future__ import annotations

from typing import Annotated

import typer

from hpcft.cli.app import ClusterName, Overrides, RecipePath, Runs, app, runs_folder
from hpcft.errors import Fault, UserError


@app.command()
def debug(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    cluster: ClusterName = None,
    runs: Runs = None,
    walltime: Annotated[str | None, typer.Option("--walltime", help="How long the shell may last, 0:30:00.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command; open nothing.")] = False,
) -> None:
    """Open a shell on a compute node, as a job would find it."""
    from hpcft.launch import debug as debug_
    from hpcft.launch.plan import make_plan
    from hpcft.schema import walltime_seconds

    try:
        walltime_seconds(walltime or "1:00")
    except ValueError as error:
        raise UserError(Fault("--walltime", f"{error}.", "Write hours:minutes:seconds, as 0:30:00.")) from None
    plan = make_plan(recipe, tuple(overrides), cluster)
    if dry_run:
        print(debug_.describe(plan, walltime))
        return
    raise typer.Exit(debug_.open_shell(plan, runs_folder(runs, plan.cluster), walltime))
