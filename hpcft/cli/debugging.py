"""The verbs that open a shell, run first steps, or make steps again, where a job would run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcft.cli.app import ClusterName, Overrides, RunName, Runs, app, choose_one
from hpcft.errors import Fault, UserError

Target = Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe's file; else a run's name or prefix.")]


@app.command()
def debug(
    target: Target,
    run: Annotated[bool, typer.Option("--run", help="Run the first steps, in the debugger if one fails.")] = False,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="How many of them; 3 when not given.")] = None,
    overrides: Overrides = [],  # noqa: B006
    cluster: ClusterName = None,
    runs: Runs = None,
    walltime: Annotated[str | None, typer.Option("--walltime", help="How long it may last, 0:30:00.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command; open nothing.")] = False,
) -> None:
    """Open a shell where a job would run, or run first steps there."""
    from hpcft.launch import debug as debug_
    from hpcft.launch.plan import make_plan

    of_run = not debug_.means_recipe(target)
    _check_options(run, steps, walltime, overrides if of_run else [], cluster if of_run else None)
    count = (steps or debug_.STEPS) if run else None
    if of_run:
        found = choose_one(runs, target)
        session, root = debug_.of_run(found, count, walltime), found.path.parent
    else:
        plan = make_plan(Path(target), tuple(overrides), cluster, runs)
        session, root = debug_.of_recipe(plan, count, walltime), plan.root
    if dry_run:
        print(debug_.describe(session))
        return
    raise typer.Exit(debug_.start(session, root))


@app.command()
def verify(
    name: RunName,
    steps: Annotated[int, typer.Option("--steps", min=2, help="How many steps to make twice.")] = 6,
    step: Annotated[int | None, typer.Option("--step", min=0, help="The checkpoint to begin at; the newest.")] = None,
    runs: Runs = None,
    walltime: Annotated[str | None, typer.Option("--walltime", help="How long it may last, 0:30:00.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command; run nothing.")] = False,
) -> None:
    """Make steps of a run again, whole and cut, and compare them."""
    from hpcft.launch import debug as debug_
    from hpcft.launch import verify as verify_

    _check_options(True, None, walltime, [], None)
    run = choose_one(runs, name)
    session = verify_.of_run(run, steps, step, walltime)
    if dry_run:
        print(debug_.describe(session))
        return
    raise typer.Exit(debug_.start(session, run.path.parent))


def _check_options(
    run: bool, steps: int | None, walltime: str | None, overrides: list[str], cluster: str | None
) -> None:
    """Raise UserError with all options that do not fit; `overrides` and `cluster` are those given with a run."""
    from hpcft.schema import walltime_seconds

    faults = []
    try:
        walltime_seconds(walltime or "1:00")
    except ValueError as error:
        faults.append(Fault("--walltime", f"{error}.", "Write hours:minutes:seconds, as 0:30:00."))
    if steps and not run:
        faults.append(Fault("--steps", "goes with --run.", "Add it."))
    for option, given in (("--set", overrides), ("--cluster", cluster)):
        if given:
            faults.append(Fault(option, "goes with a recipe; a run is looked into as it is.", "Leave it out."))
    if faults:
        raise UserError(faults)
