"""The verbs that draw runs: pictures, pages and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcft.cli.app import RunName, Runs, app, choose, choose_one, runs_folder
from hpcft.errors import Fault, UserError, did_you_mean

if TYPE_CHECKING:
    from hpcft.curves.runcurves import RunCurves

SomeRuns = Annotated[list[str], typer.Argument(metavar="RUN...", help="Names, or prefixes that fit only one run.")]


@app.command()
def plot(
    names: SomeRuns,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="A .svg, .png or .html file.")],
    axis: Annotated[str, typer.Option("--x", metavar="AXIS", help="step, hours (in jobs) or time.")] = "step",
    tags: Annotated[
        list[str], typer.Option("--tag", metavar="TAG", help="Draw this, as speed/mfu, in place of the losses.")
    ] = [],  # noqa: B006
    runs: Runs = None,
) -> None:
    """Draw curves of runs: a picture, or a page to look closer."""
    from hpcft.curves.runcurves import read_run

    chosen = choose(runs_folder(runs), names)
    title = chosen[0].name if len(chosen) == 1 else " ".join(names)
    draw([read_run(run) for run in chosen], out, title, axis=axis, tags=tags)
    print(out)


def draw(
    runs: Sequence[RunCurves],
    out: Path,
    title: str,
    *,
    best: str | None = None,
    axis: str = "step",
    tags: Sequence[str] = (),
) -> None:
    """Draw a run, or several in one picture, of which that named `best` stands out. Raises UserError."""
    from hpcft.curves import overlay, page, picture
    from hpcft.curves.axis import AXES
    from hpcft.curves.figure import FORMATS

    known = next((one for one in AXES if one == axis), None)
    if known is None:
        raise UserError(Fault("--x", f'"{axis}" is no axis.', did_you_mean(axis, AXES)))
    if out.suffix not in FORMATS:
        raise UserError(Fault("-o", f"no picture: {out}: a picture is .svg, .png or .html, not {out.suffix!r}."))
    try:
        if out.suffix == ".html":
            page.write_curves(runs, out, title, tags, known)
        elif len(runs) > 1:
            overlay.draw_overlay(runs, out, title, best, tags, known)
        else:
            picture.draw(runs[0], out, tags, known)
    except OSError as error:
        raise UserError(unwritable(out, error)) from None
    except ValueError as error:
        raise UserError(Fault(title, f"no picture: {error}")) from None


def unwritable(out: Path, error: OSError) -> Fault:
    """That the file which -o names cannot be written."""
    what = f"{out} cannot be written: {(error.strerror or str(error)).lower()}."
    return Fault("-o", what, "Name another place.")


@app.command()
def report(
    name: RunName,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="An .html file, else the run's report.html."),
    ] = None,
    runs: Runs = None,
) -> None:
    """Write a page on a run that can be sent to somebody."""
    from hpcft.curves.runcurves import read_run
    from hpcft.launch.status import read_status
    from hpcft.report.page import write_report

    run = choose_one(runs, name)
    out = out or run.path / "report.html"
    if out.suffix != ".html":
        raise UserError(Fault("-o", f"{out}: a report is .html, not {out.suffix!r}."))
    try:
        write_report(run, read_status([run])[0], read_run(run), out)
    except OSError as error:
        raise UserError(unwritable(out, error)) from None
    print(out)
