"""The verb that sets runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcft.cli.app import Runs, app, runs_folder
from hpcft.cli.drawing import draw

if TYPE_CHECKING:
    from hpcft.curves.runcurves import RunCurves
    from hpcft.curves.stitch import Stitched
    from hpcft.launch.compare import Losses, Result
    from hpcft.rundir import RunDir

Words = Annotated[list[str], typer.Argument(metavar="RUN...", help="Names, prefixes, or a recipe with a matrix.")]


@app.command()
def compare(
    words: Words,
    by: Annotated[
        str | None, typer.Option("--by", metavar="MEASURE", help="Which is best: accuracy, validation_loss, ...")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Draw their curves: .svg, .png, .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    runs: Runs = None,
) -> None:
    """Show runs side by side, with what they set otherwise."""
    from hpcft.launch import compare as compare_
    from hpcft.launch.comparetable import print_table

    found, absent = compare_.named(runs_folder(runs), words)
    best, order, curves = compared(found, by)
    if as_json:
        print(compare_.as_json(best, order, absent))
    else:
        print_table(best, order, absent)
    if out is None:
        return
    first = compare_.winner(best, order)
    title = " ".join(Path(word).stem if "/" in word else word for word in words)
    draw([curves[one.name] for one in order], out, title, best=first.name if first and len(order) > 1 else None)
    if not as_json:
        print(out)


def compared(runs: Sequence[RunDir], by: str | None) -> tuple[str | None, list[Result], dict[str, RunCurves]]:
    """The measure, the runs from the best on, and their curves by name."""
    from hpcft.curves.runcurves import read_run
    from hpcft.launch import compare as compare_
    from hpcft.launch.status import read_status

    curves = {run.name: read_run(run) for run in runs}
    losses = [losses_of(curves[run.name].stitched) for run in runs]
    best, order = compare_.best(compare_.results(runs, read_status(runs), losses), by)
    return best, order, curves


def losses_of(stitched: Stitched) -> Losses:
    """What the stitched curves of a run come to."""
    from hpcft.launch.compare import Losses

    train, validation = stitched.curve("train/loss"), stitched.curve("validation/loss")
    tail = train[train.steps > train.steps[-1] * 0.9] if len(train) else train
    lowest = int(validation.values.argmin()) if len(validation) else None
    return Losses(
        float(tail.values.mean()) if len(tail) else None,
        float(validation.values[-1]) if len(validation) else None,
        None if lowest is None else float(validation.values[lowest]),
        None if lowest is None else int(validation.steps[lowest]),
    )


def show_comparison(runs: Sequence[RunDir]) -> None:
    """The table of runs that have just ended."""
    from hpcft.launch.comparetable import print_table

    best, order, _ = compared(runs, None)
    print_table(best, order, [])
