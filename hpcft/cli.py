"""The `hpcft` command: a verb is one thin function over what the folders below it do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.rundir import RunDir

# What a verb needs is imported in it: `hpcft --help` has 0.25 s for everything.

app = typer.Typer(
    help="Fine-tune language models over chains of Slurm jobs that end as one uncut run would.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or a prefix that fits only it.")]
RunNames = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or prefixes; all runs if none.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override, as train.seed=1.")]
ClusterName = Annotated[str | None, typer.Option("--cluster", metavar="NAME", help="Cluster, or a path to its file.")]
Runs = Annotated[Path | None, typer.Option("--runs", metavar="DIR", help="Folder of all runs, else HPCFT_RUNS.")]


def runs_folder(given: Path | None, cluster: Any = None) -> Path:
    """The folder of all runs: --runs, else HPCFT_RUNS, else the cluster's."""
    if named := str(given or os.environ.get("HPCFT_RUNS", "")):
        from hpcft.schema import expand

        return expand(named).absolute()
    if cluster is not None:
        return Path(cluster.runs_folder()).absolute()
    return _only_cluster_folder()


def _only_cluster_folder() -> Path:
    """Without a recipe: the runs of the one known cluster that has any, else ./runs."""
    from hpcft.launch.cluster import Choice, cluster_files, read_cluster
    from hpcft.rundir import find_runs

    folders = []
    for name in cluster_files():
        try:
            folder = read_cluster(Choice(name, "--cluster")).runs_folder().absolute()
        except UserError:
            continue  # a site whose variables are not set here
        if find_runs(folder):
            folders.append(folder)
    if len(set(folders)) > 1:
        names = ", ".join(map(str, folders))
        raise UserError(Fault("--runs", f"runs lie in several folders: {names}.", "Name one, or set HPCFT_RUNS."))
    return folders[0] if folders else Path("runs").absolute()


@app.command()
def submit(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    cluster: ClusterName = None,
    runs: Runs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print script and plan; touch nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show progress until the run ends; Ctrl-C leaves it going.")
    ] = False,
) -> None:
    """Start a run, a chain of jobs that trains what a recipe says."""
    from hpcft.launch import chain, show
    from hpcft.launch.plan import make_plan

    plan = make_plan(recipe, tuple(overrides), cluster)
    root = runs_folder(runs, plan.cluster)
    if dry_run:
        show.print_plan(plan, root)
        return
    run = chain.submit(plan, root)
    show.print_submitted(run)
    if wait:
        wait_for(run)


def choose(root: Path, names: list[str] | None) -> list[RunDir]:
    """The runs of these names or prefixes; all of the folder if none is given."""
    from hpcft.rundir import find_run, find_runs

    return [find_run(root, name) for name in dict.fromkeys(names)] if names else find_runs(root)


def choose_one(runs: Path | None, name: str) -> RunDir:
    """The one run that this name or prefix means."""
    from hpcft.rundir import find_run

    return find_run(runs_folder(runs), name)


def wait_for(run: RunDir) -> None:
    """Show the run until it ends, then what came of it; exit code 0 only if it finished."""
    from hpcft.launch import show

    try:
        status = show.follow(run)
    except KeyboardInterrupt:
        print(f"\n{run.name} goes on. `hpcft status {run.name}` shows it, `hpcft stop {run.name}` pauses it.")
        raise typer.Exit(130) from None
    show.print_jobs(status)
    show.print_evaluation(run)
    show.print_runs([status])
    if status.step:
        picture = run.path / "curve.png"
        try:
            draw(run, picture)
        except (ValueError, OSError) as error:
            print(f"no picture: {error}")
        else:
            print(f"curve: {picture}")
        print(f"TensorBoard: hpcft tensorboard {run.name} --runs {run.path.parent}")
    if status.state != "finished":
        raise typer.Exit(1)
    print(f"model: {run.final_model}")


@app.command()
def status(
    names: RunNames = None,
    runs: Runs = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show state, step, loss and time left of runs. With a name, also each of its jobs."""
    import json

    from hpcft.launch import show
    from hpcft.launch.status import read_status

    root = runs_folder(runs)
    chosen = choose(root, names)
    statuses = read_status(chosen)
    if as_json:
        print(json.dumps({"runs": [status.as_json() for status in statuses]}, indent=1))
        return
    if not chosen:
        print(f"no run in {root}; --runs or HPCFT_RUNS names another folder")
        return
    show.print_runs(statuses)
    for one in statuses if names else ():
        show.print_jobs(one)


@app.command()
def resume(
    name: RunName,
    runs: Runs = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the run ends.")] = False,
) -> None:
    """Go on with a run that is over and not finished. It begins at its newest sound checkpoint."""
    from hpcft.launch import show, steer

    run = choose_one(runs, name)
    steer.resume(run)
    show.print_submitted(run)
    if wait:
        wait_for(run)


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
        raise UserError(Fault(str(out), f"cannot be written: {(error.strerror or str(error)).lower()}.")) from None
    except ValueError as error:
        raise UserError(Fault(run.name, f"no picture: {error}")) from None
    print(out)


def draw(run: RunDir, out: Path) -> None:
    """Draw the stitched curve of a run. Raises ValueError if there is nothing to draw, or not in this format."""
    from hpcft.curves.picture import draw as draw_curve
    from hpcft.curves.stitch import stitch

    draw_curve(stitch(job_curves(run)), out, run.name)


def job_curves(run: RunDir) -> list[Any]:
    """The run's jobs as the stitcher wants them."""
    from hpcft.curves.stitch import JobCurve

    return [
        JobCurve(job.label, job.number, job.attempt, job.curve, (job.resumed or {}).get("step"))
        for job in run.jobs()
        if job.submitted
    ]


@app.command()
def tensorboard(
    names: RunNames = None,
    runs: Runs = None,
    port: Annotated[int | None, typer.Option("--port", help="A free one if not given.")] = None,
) -> None:
    """Show curves in TensorBoard, stitched and by job. It follows runs that go on; Ctrl-C ends it."""
    from functools import partial

    from hpcft.curves.serve import serve

    root = runs_folder(runs)
    chosen = choose(root, names)
    if not chosen:
        raise UserError(Fault(str(root), "holds no run.", "Name another folder with --runs or HPCFT_RUNS."))
    try:
        serve({run.name: partial(job_curves, run) for run in chosen}, port)
    except RuntimeError as error:
        raise UserError(Fault("tensorboard", " ".join(str(error).split()))) from None


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


def main() -> None:
    """The entry point: faults on stderr, one a line, and exit code 2."""
    try:
        app(prog_name="hpcft")
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
