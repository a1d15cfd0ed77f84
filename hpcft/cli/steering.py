"""Verbs that start, pause, end and go on with runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hpcft.cli.app import Changes, ClusterName, Overrides, RecipePath, RunName, Runs, app, choose_one
from hpcft.cli.comparing import show_comparison
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.launch.plan import Plan
    from hpcft.rundir import RunDir


@app.command()
def submit(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    cluster: ClusterName = None,
    runs: Runs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print script and plan; touch nothing.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try its whole way here in a minute, on a tiny model and 64 rows.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show progress until the run ends; Ctrl-C leaves it going.")
    ] = False,
) -> None:
    """Start a run, a chain of jobs that trains what a recipe says."""
    from hpcft.launch import chain, dryrun, show
    from hpcft.launch.plan import make_plans
    from hpcft.launch.submission import check_folder

    if smoke:
        submit_smoke(recipe, overrides, cluster, runs, dry_run or wait)
    plans = make_plans(recipe, tuple(overrides), cluster, runs, dry=dry_run)
    plan = plans[0]
    check_folder(plan.root)
    if plans[1:]:
        submit_matrix(plans, recipe, dry_run, wait)
        return
    if dry_run:
        dryrun.print_plan(plan)
        return
    outlook = dryrun.outlook(plan)
    run = chain.submit(plan, plan.root)
    show.print_submitted(run)
    print(outlook)
    if wait:
        wait_for(run)


def submit_smoke(recipe: Path, overrides: list[str], cluster: str | None, runs: Path | None, more: bool) -> NoReturn:
    """Try a recipe on this machine; the exit code says whether it works."""
    from hpcft.launch.smoke import smoke

    if more:
        raise UserError(Fault("--smoke", "goes without --dry-run and --wait.", "Leave them out."))
    raise typer.Exit(smoke(recipe, overrides, cluster, runs))


def submit_matrix(plans: list[Plan], recipe: Path, dry_run: bool, wait: bool) -> None:
    """Start the runs of a matrix, or show what they would be."""
    from hpcft.launch import show_sweep, sweep, watch

    if dry_run:
        show_sweep.print_plans(plans)
        return
    show_sweep.print_outlook(plans)
    submitted = sweep.submit(plans, plans[0].root)
    show_sweep.print_submitted(submitted, recipe)
    if not wait:
        return
    runs = [placed.run for placed in submitted.runs]
    try:
        statuses = [watch.follow(run) for run in runs]
    except KeyboardInterrupt:
        print(f"\nThe runs go on. `hpcft compare {recipe}` shows them.")
        raise typer.Exit(130) from None
    show_comparison(runs)
    if any(status.state != "finished" for status in statuses):
        raise typer.Exit(1)


def wait_for(run: RunDir) -> None:
    """Show the run until it ends, then what came of it; exit code 0 only if it finished."""
    from hpcft.launch import show, watch

    try:
        status = watch.follow(run)
    except KeyboardInterrupt:
        print(f"\n{run.name} goes on. `hpcft status {run.name}` shows it, `hpcft stop {run.name}` pauses it.")
        raise typer.Exit(130) from None
    show.print_jobs(status)
    show.print_evaluation(run)
    show.print_runs([status])
    if status.step:
        from hpcft.curves.judgement import judge_run
        from hpcft.curves.picture import draw
        from hpcft.curves.runcurves import read_run

        curves, picture = read_run(run), run.path / "curve.png"
        print(f"verdict: {judge_run(curves)}")
        try:
            draw(curves, picture)
        except (ValueError, OSError) as error:
            print(f"no picture: {error}")
        else:
            print(f"curve: {picture}")
        print(f"TensorBoard: hpcft tensorboard {run.name} --runs {run.path.parent}")
    if status.state != "finished":
        raise typer.Exit(1)
    print(f"model: {run.final_model}")


@app.command()
def resume(
    name: RunName,
    overrides: Changes = [],  # noqa: B006
    runs: Runs = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the run ends.")] = False,
) -> None:
    """Go on with a run that is not finished. It begins at its newest sound checkpoint."""
    from hpcft.launch import show, steer

    run = choose_one(runs, name)
    done = steer.resume(run, overrides)
    for line in (*done.changed, *done.notes):
        print(f"{run.name}: {line}")
    show.print_submitted(run)
    if wait:
        wait_for(run)


@app.command()
def extend(
    name: RunName,
    jobs: Annotated[int, typer.Argument(metavar="N", min=1, help="How many jobs more.")],
    runs: Runs = None,
) -> None:
    """Grant a run more jobs than its recipe does."""
    from hpcft.launch import steer
    from hpcft.launch.words import count

    run = choose_one(runs, name)
    last, goes_on = steer.extend(run, jobs)
    then = "" if goes_on else f" `hpcft resume {run.name}` goes on."
    print(f"{run.name} may go on to job {last}, {count(jobs, 'job')} further than before.{then}")


@app.command()
def stop(name: RunName, runs: Runs = None) -> None:
    """Pause a run after a save. No other job begins until `hpcft resume`."""
    from hpcft.launch import steer

    run = choose_one(runs, name)
    pausing = steer.stop(run)
    words = "stops as soon as it has saved" if pausing else "is paused: no job of it runs"
    print(f"{run.name} {words}. `hpcft resume {run.name}` goes on.")


@app.command()
def cancel(name: RunName, runs: Runs = None) -> None:
    """End all jobs of a run at once. Its last checkpoint stays, and `hpcft resume` can go on."""
    from hpcft.launch import steer

    run = choose_one(runs, name)
    ended = steer.cancel(run)
    ids = ", ".join(job.slurm_id or "?" for job in ended) or "none was left"
    then = f" `hpcft resume {run.name}` goes on." if run.path.exists() and not run.finished else ""
    print(f"{run.name}: cancelled jobs: {ids}.{then}")


@app.command()
def rm(
    name: RunName,
    runs: Runs = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a run for good, its checkpoints and its model too."""
    import sys

    from hpcft.launch.remove import removable, remove
    from hpcft.launch.sizes import sizes
    from hpcft.launch.words import amount, count

    run = choose_one(runs, name)
    removable(run)
    what = f"{run.path}: {count(len(run.saved_steps()), 'checkpoint')}"
    what += ", the final model" if run.final_model.exists() else ", no final model"
    what += f", {amount(sum(sizes(run).values()))}"
    if not yes and not sys.stdin.isatty():
        raise UserError(Fault(run.name, "is not removed where nobody can be asked.", "Say --yes."))
    if not yes and not typer.confirm(f"{what}. Remove it for good?"):
        print(f"{run.name} stays.")
        raise typer.Exit(1)
    remove(run)
    print(f"removed {what}")
