"""Verbs that show runs: their state, their logs and their curves."""

from __future__ import annotations

from pathlib import Path
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
    for run, one in zip(chosen, statuses, strict=True) if names else ():
        show.print_details(one)
        print(f"  verdict    {verdict(run)}")
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


@app.command()
def plot(
    name: RunName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="A .png or .svg file.")],
    runs: Runs = None,
) -> None:
    """Draw train and validation loss, coloured by job."""
    run = choose_one(runs, name)
    try:
        draw(run, out)
    except OSError as error:
        what = f"{out} cannot be written: {(error.strerror or str(error)).lower()}."
        raise UserError(Fault("-o", what, "Name another place.")) from None
    except ValueError as error:
        raise UserError(Fault(run.name, f"no picture: {error}")) from None
    print(out)


def draw(run: RunDir, out: Path) -> None:
    """Draw the stitched curve of a run. Raises ValueError if there is nothing to draw, or not in this format."""
    from hpcft.curves.picture import Phase
    from hpcft.curves.picture import draw as draw_curve
    from hpcft.curves.stitch import stitch

    phases = [Phase(one["name"], one["begins"], one["ends"], one["other_measure"]) for one in run.phases]
    draw_curve(stitch(job_curves(run)), out, run.name, phases)


def verdict(run: RunDir) -> str:
    """What the curves of a run say, in words."""
    from hpcft.curves.judgement import judge
    from hpcft.curves.stitch import stitch

    stitched = stitch(job_curves(run))
    curves = [stitched.curve(tag) for tag in ("train/loss", "validation/loss")]
    # What phases learn may not be the same: then the newest one that has a step is judged alone.
    begins = [phase["begins"] for phase in run.phases if phase["other_measure"]]
    if since := max((step for step in begins if len(curves[0]) and step < curves[0].steps[-1]), default=0):
        curves = [curve[curve.steps > since] for curve in curves]
    return judge(*curves)


def job_curves(run: RunDir) -> list[Any]:
    """The run's jobs as the stitcher wants them."""
    from hpcft.curves import jobs

    return [*jobs.job_curves(run)]
