"""The verb that stitches what something else than hpcft has logged."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcft.cli.app import app
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.curves.starts import Found, Reader
    from hpcft.curves.stitch import JobCurve, Stitched

Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with event files anywhere below.")]

LARGE = 16_000_000
"""Bytes that take so long to read that it is said."""


@app.command()
def stitch(
    folders: Folders,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="VIEW", help="The folder that TensorBoard will show.")],
    follow: Annotated[bool, typer.Option("--follow", help="Keep it up to date until Ctrl-C.")] = False,
    in_order: Annotated[bool, typer.Option("--in-order", help="The folders stand in the order they ran in.")] = False,
) -> None:
    """Stitch event files that other trainers left, into one curve."""
    from hpcft.curves.starts import Reader
    from hpcft.curves.view import View

    roots = _checked(folders, out)
    run = _own_run(roots)
    reader = None if run else Reader(roots, in_order=in_order)
    if reader and (size := reader.size()) > LARGE:
        print(f"reading {size / 1e6:.0f} MB of event files", file=sys.stderr, flush=True)
    try:
        poll = _of_run(run) if run else _of_starts(reader, out, roots)
        jobs, say = poll()  # first, so that nothing is made where nothing is found
        try:
            view = View(out)
        except (FileExistsError, BlockingIOError) as error:
            raise UserError(Fault("-o", str(error))) from None
        except OSError as error:
            what = f"{out} cannot be written: {(error.strerror or str(error)).lower()}."
            raise UserError(Fault("-o", what, "Name another place.")) from None
        say(_shown(view, jobs, out))
        print(f"tensorboard --logdir {out}", flush=True)
        if follow:
            print("Ctrl-C ends it.", flush=True)
            _keep_up(view, poll)
    finally:
        if reader:
            reader.close()


Poll = Callable[[], tuple[Sequence["JobCurve"], Callable[["Stitched"], None]]]
"""The starts as they are now, and what says what became of them; it is silent where that has been said."""


def _checked(folders: Sequence[Path], out: Path) -> list[Path]:
    faults = []
    for folder in folders:
        if not folder.exists():
            faults.append(Fault(str(folder), "is not there.", "Name a folder with event files."))
        elif folder.resolve().is_relative_to(out.resolve()):
            faults.append(Fault("-o", f"{folder} lies in it, and would be replaced.", "Name another folder."))
    if faults:
        raise UserError(faults)
    return [*dict.fromkeys(folder.resolve() for folder in folders)]


def _own_run(roots: Sequence[Path]) -> Path | None:
    """The run of hpcft that was named. Raises UserError where something else was named beside it."""
    own = [root for root in roots if (root / "recipe.json").is_file() and (root / "jobs").is_dir()]
    if own and len(roots) > 1:
        what = "is a run of hpcft, which is stitched from its own records."
        raise UserError(Fault(str(own[0]), what, "Name it alone."))
    return own[0] if own else None


def _of_run(path: Path) -> Poll:
    from hpcft.curves.jobs import job_curves
    from hpcft.rundir import RunDir

    said: list[int] = []

    def poll() -> tuple[Sequence[JobCurve], Callable[[Stitched], None]]:
        jobs = job_curves(RunDir(path))

        def say(stitched: Stitched) -> None:
            if said != [len(jobs)]:
                said[:] = [len(jobs)]
                print(f"{path.name} is a run of hpcft: {len(jobs)} jobs, stitched from its own records")

        return jobs, say

    return poll


def _of_starts(reader: Reader | None, out: Path, roots: Sequence[Path]) -> Poll:
    from hpcft.cli.startstable import Told, print_starts
    from hpcft.curves.infer import infer

    assert reader is not None
    told: list[Told] = []

    def poll() -> tuple[Sequence[JobCurve], Callable[[Stitched], None]]:
        found = reader.find()
        if not any(start.curves for start in found.starts):
            raise _nothing(found, roots)
        taken, doubts = infer(found.starts, by_clock=reader.by_clock)
        jobs = reader.job_curves(found.starts, [one.resume_step for one in taken])

        def say(stitched: Stitched) -> None:
            now = Told(tuple(start.name for start in found.starts), tuple(taken), tuple(doubts))
            if [now] != told:
                told[:] = [now]
                print_starts(found, now, jobs, stitched, out)

        return jobs, say

    return poll


def _nothing(found: Found, roots: Sequence[Path]) -> UserError:
    where = ", ".join(map(str, roots))
    if found.starts:
        return UserError(Fault(where, "has event files, but no scalar in any of them."))
    return UserError(Fault(where, "has no event files (events.out.tfevents.*) in it or below."))


def _shown(view: Any, jobs: Sequence[JobCurve], out: Path) -> Stitched:
    try:
        stitched: Stitched = view.poll(jobs)
    except OSError as error:
        what = f"{out} cannot be written: {(error.strerror or str(error)).lower()}."
        raise UserError(Fault("-o", what, "Make room, or name another place.")) from None
    return stitched


def _keep_up(view: Any, poll: Poll) -> None:
    """Bring the view up to date every few seconds until Ctrl-C, which never falls into the middle of a write."""
    from hpcft.curves.serve import POLL_SECONDS

    ended = threading.Event()
    before = [(number, signal.signal(number, lambda *_: ended.set())) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        while not ended.wait(POLL_SECONDS):
            # A disk that is full, files that are moved: a later poll makes good what is missing.
            with contextlib.suppress(OSError, UserError):
                jobs, say = poll()
                say(view.poll(jobs))
    finally:
        for number, handler in before:
            signal.signal(number, handler)
