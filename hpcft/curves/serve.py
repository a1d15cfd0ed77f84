"""TensorBoard over the views of several runs, kept in step with them until the user has seen enough."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hpcft.children import ended_by_signals
from hpcft.curves.jobs import chain_table, job_curves
from hpcft.curves.server import TensorBoard, start_tensorboard
from hpcft.curves.stitch import JobCurve, Stitched
from hpcft.curves.view import SECONDS_AWAY, Picture, View
from hpcft.disk import read_json
from hpcft.errors import Fault
from hpcft.rundir import RunDir, find_runs
from hpcft.scratch import scratch_folder

POLL_SECONDS = 3.0

Shown = tuple[Sequence[JobCurve], Sequence[Picture], Callable[[Stitched], str]]
Runs = Mapping[str, Callable[[], Shown]]
"""What is shown of each run at the moment of the call, by the run's name."""


def serve(
    find: Callable[[], Runs],
    announce: Callable[[TensorBoard], None],
    port: int | None = None,
    until: float | None = None,
) -> None:
    """Return when Ctrl-C was pressed, or at `until` (seconds since 1970); TensorBoard and the views are gone then.

    `find` gives the runs as they are at that moment, and raises OSError if it cannot look; `announce` gets the server
    once it answers. Raises RuntimeError if TensorBoard does not start or ends by itself, or if
    nothing can be written, and SystemExit at SIGTERM and when the terminal closes.
    """
    with ended_by_signals(), contextlib.suppress(KeyboardInterrupt), scratch_folder() as folder:
        views = Views(folder / "views", find)
        news = views.poll()
        if VIEW in views.troubles:
            fault = views.troubles[VIEW]
            raise RuntimeError(f"{fault.where}: {fault.what} TMPDIR names another place for it.")
        _say(news)
        server = start_tensorboard(folder / "views", port=port)
        try:
            announce(server)
            while until is None or time.time() < until:
                time.sleep(POLL_SECONDS)
                if server.process.poll() is not None:
                    raise RuntimeError(server.obituary())
                _say(views.poll())
        finally:
            server.stop()


def runs_in(root: Path, names: Sequence[str]) -> Callable[[], Runs]:
    """Finds the runs of these names in a folder, or without names all that are there at the moment."""

    def find() -> Runs:
        os.scandir(root).close()  # find_runs takes a folder that has vanished for an empty one
        runs = [RunDir(root / name) for name in names] if names else find_runs(root)
        return {run.name: partial(shown, run) for run in runs if run.path.is_dir()}

    return find


def shown(run: RunDir) -> Shown:
    """What TensorBoard shows of a run: its jobs' curves, the pictures in its evaluation/, and the table of its jobs."""
    pictures = []
    for path in sorted(run.evaluation.glob("*.png")):
        # The one that has all of them has no report, and belongs to no step.
        step = (read_json(path.with_suffix(".json")) or {}).get("step", 0)
        pictures.append(Picture(f"confusion/{path.stem}", step, path))
    return job_curves(run), pictures, chain_table(run)


FOLDER, VIEW = "/folder", "/view"
"""What can be in trouble beside a run, whose name has no slash."""
STAYS = "What it had stays in view."


class Views:
    """A view of each run below one folder, and what stands in the way of them."""

    def __init__(self, folder: Path, find: Callable[[], Runs]) -> None:
        self.troubles: dict[str, Fault] = {}
        """What is wrong now: with FOLDER, with VIEW, or by the name of a run."""
        self._folder, self._find = folder, find
        self._views: dict[str, View] = {}
        self._away_until: dict[str, float] = {}

    def poll(self) -> list[str]:
        """Bring all views up to date; runs that are new get one, and those of runs that are gone go.

        What has happened to the views since the last poll, a line each: a trouble is told when it comes and when it is
        over.
        """
        self._folder.mkdir(exist_ok=True)
        before, self.troubles = self.troubles, {}
        news = []
        try:
            runs = self._find()
        except OSError as error:
            self.troubles[FOLDER] = Fault(str(error.filename), f"cannot be read: {_reason(error)}.", STAYS)
        else:
            for name in self._views.keys() - runs.keys():
                self._drop(name)
                news.append(f"{name}: is gone from its folder, and from view.")
            for name, of_run in runs.items():
                if time.monotonic() >= self._away_until.get(name, 0.0):
                    self._update(name, of_run)
        news += [str(fault) for key, fault in self.troubles.items() if key not in before]
        return news + [f"{before[key].where}: all is well again." for key in before.keys() - self.troubles.keys()]

    def _update(self, name: str, of_run: Callable[[], Shown]) -> None:
        try:
            now = of_run()
        except (OSError, ValueError) as error:
            self.troubles[name] = Fault(name, f"cannot be read: {_reason(error)}.", STAYS)
            return
        try:
            if name not in self._views:
                self._views[name] = View(self._folder / name)
            self._views[name].poll(*now)
        except OSError as error:
            what = f"the view cannot be written: {_reason(error)}."
            self.troubles[VIEW] = Fault(str(self._folder), what, "Once there is room, it makes good what is missing.")

    def _drop(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        del self._views[name]
        # A new run of its name waits until TensorBoard has forgotten this one.
        self._away_until[name] = time.monotonic() + SECONDS_AWAY


def _say(news: Sequence[str]) -> None:
    for line in news:
        print(f"hpcft: {line}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
