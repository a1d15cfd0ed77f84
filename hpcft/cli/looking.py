"""Verbs that show runs: their state, their logs and their curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcft.cli.app import RunName, RunNames, Runs, app, choose, choose_one, runs_folder
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.rundir import RunDir


@app.command()
def status(
    names: RunNames = None,
    runs: Runs = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Renew it until all is over; Ctrl-C ends it.")] = False,
) -> None:
    """Show state, step, loss and time left of runs. With a name, also each of its jobs."""
    import json

    from hpcft.launch import show
    from hpcft.launch.status import read_status

    if watch and as_json:
        raise UserError(Fault("--watch", "goes without --json.", "Call `hpcft status --json` again when you need it."))
    root = runs_folder(runs)
    chosen = choose(root, names)
    if as_json:
        print(json.dumps({"runs": [status.as_json() for status in read_status(chosen)]}, indent=1))
        return
    if not chosen:
        print(f"no run in {root}; --runs or HPCFT_RUNS names another folder")
        return
    if watch:
        from hpcft.launch.watch import watch_runs

        watch_runs(chosen, details=bool(names))
        return
    statuses = read_status(chosen)
    show.print_runs(statuses)
    if not names:
        return
    from hpcft.curves.judgement import judge_run
    from hpcft.curves.runcurves import read_run
    from hpcft.curves.sparkline import sparkline

    for run, one in zip(chosen, statuses, strict=True):
        show.print_details(one)
        curves = read_run(run)
        if line := sparkline(curves, show.console.width - 13):
            show.print_line("curve", line)
        print(f"  verdict    {judge_run(curves)}")
        show.print_jobs(one)


@app.command()
def why(name: RunName, runs: Runs = None) -> None:
    """Say what went wrong last in a run, and what to type."""
    from hpcft.launch.why import explain

    for line in explain(choose_one(runs, name)):
        print(line)


@app.command()
def logs(
    name: RunName,
    runs: Runs = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the logs grow, across jobs.")] = False,
    job: Annotated[int | None, typer.Option("--job", help="Only this job's.")] = None,
) -> None:
    """Print what the jobs of a run have printed, or follow it."""
    from hpcft.launch import logs as logs_

    run = choose_one(runs, name)
    if follow and job is not None:
        raise UserError(Fault("--job", "cannot be followed: -f goes from job to job.", "Leave out one of the two."))
    if follow:
        logs_.follow_logs(run)
    else:
        logs_.print_logs(run, job)


@app.command()
def show(
    name: RunName,
    runs: Runs = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only the uncommitted changes around its recipe.")] = False,
) -> None:
    """Show where a run came from and what was changed in it."""
    import json

    from hpcft.launch.show_run import papers, print_papers

    run = choose_one(runs, name)
    if as_json:
        print(json.dumps({**papers(run), "verdict": verdict(run)}, indent=1))
        return
    print_papers(run, diff=diff)
    if not diff:
        print(f"\nverdict: {verdict(run)}")


def verdict(run: RunDir) -> str:
    """What the curves of a run say, in words."""
    from hpcft.curves.judgement import judge_run
    from hpcft.curves.runcurves import read_run

    return judge_run(read_run(run))


def job_curves(run: RunDir) -> list[Any]:
    """The run's jobs as the stitcher wants them."""
    from hpcft.curves import jobs

    return [*jobs.job_curves(run)]
