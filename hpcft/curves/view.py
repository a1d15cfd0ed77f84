"""The run as TensorBoard shows it: each job in its colour, and `stitched`, the whole curve.

A derived directory: all in it can be made again from what the jobs have logged.
"""

import fcntl
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcft.curves.events import file_name, image_event, scalar_event, start_event, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.points import Points, join_points
from hpcft.curves.rewind import Curves, plan_update
from hpcft.curves.stitch import JobCurve, Stitched, Stitcher

STITCHED = "stitched"
"""The name of the TensorBoard run that holds the whole curve."""
RELOAD_SECONDS = 5
"""How often our TensorBoard looks for new data."""
SECONDS_AWAY = 2 * RELOAD_SECONDS + 1
"""A directory that must begin anew stays away this long, so that TensorBoard notices and forgets it."""
PICTURES = "evaluation"
"""The name of the TensorBoard run that holds pictures."""
_MARK = ".hpcft-view"


@dataclass(frozen=True)
class Picture:
    """A PNG of the run's, and where TensorBoard shows it."""

    tag: str
    step: int
    path: Path


class View:
    """Keeps a directory of event files in step with a run, one `poll` at a time; one View per directory.

    TensorBoard may run all the while: files only grow. It must not be running when a View is made for a
    directory that already is one, for that is emptied and written from nothing.
    """

    def __init__(self, directory: Path) -> None:
        """Raises FileExistsError where `directory` holds other files, OSError if it cannot be made.

        BlockingIOError where another process has a View of it: two writers would spoil each other's files.
        """
        if directory.is_dir() and not (directory / _MARK).exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} holds files that hpcft did not make. Name another directory.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory)
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        self._directory = directory
        self._stitcher = Stitcher()
        self._shown: dict[str, Curves] = {}
        self._away_until: dict[str, float] = {}
        self._pictures: dict[Picture, float] = {}

    def poll(self, jobs: Sequence[JobCurve], pictures: Sequence[Picture] = ()) -> Stitched:
        """The curves of `jobs` (oldest first), after the directory was brought up to date with them and the pictures.

        A TensorBoard run whose first points were superseded is away for `SECONDS_AWAY` and returns at a
        later poll. Raises OSError when the view cannot be written; a later poll makes good what is missing.
        """
        stitched = self._stitcher.stitch(jobs)
        wanted = plan_runs(stitched)
        for name in self._shown.keys() - wanted.keys():
            self._remove(name)
        for name, curves in wanted.items():
            if time.monotonic() >= self._away_until.get(name, 0.0):
                self._update(name, curves)
        for picture in pictures:
            self._show(picture)
        return stitched

    def _show(self, picture: Picture) -> None:
        """Put a picture behind the others, unless it is there; one that was drawn anew is shown at its step again."""
        try:
            drawn, png = picture.path.stat().st_mtime, picture.path.read_bytes()
        except OSError:
            return  # of a run that is being removed
        if self._pictures.get(picture) == drawn:
            return
        path = self._directory / PICTURES / file_name(1)
        path.parent.mkdir(exist_ok=True)
        first = [] if path.exists() else [version_event(drawn)]
        try:
            with path.open("ab") as file:
                file.write(encode_frames([*first, image_event(picture.tag, png, picture.step, drawn)]))
        except OSError:
            shutil.rmtree(path.parent, ignore_errors=True)  # as above
            self._pictures.clear()
            raise
        self._pictures[picture] = drawn

    def _update(self, name: str, wanted: Curves) -> None:
        shown = self._shown.get(name, {})
        update = plan_update(shown, wanted)
        if update is None:
            self._remove(name)
            return
        if not update.points:
            return
        rows = _in_step_order(update.points)
        first_wall_time = rows[0][2]
        events = []
        if not shown:
            events += [version_event(first_wall_time), start_event(0, first_wall_time)]
        if update.start is not None:
            events.append(start_event(update.start, first_wall_time))
        events += [scalar_event(tag, value, step, wall_time) for tag, step, wall_time, value in rows]
        path = self._directory / name / file_name(1)
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("ab") as file:
                file.write(encode_frames(events))
        except OSError:
            self._remove(name)  # a half-written frame would hide all that follows it
            raise
        self._shown[name] = wanted

    def _remove(self, name: str) -> None:
        shutil.rmtree(self._directory / name, ignore_errors=True)
        self._shown.pop(name, None)
        self._away_until[name] = time.monotonic() + SECONDS_AWAY


def _lock(directory: Path) -> IO[bytes]:
    """The open mark of a view, locked as long as it is open. Where the file system has no locks, it goes without."""
    mark = (directory / _MARK).open("ab")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mark.close()
        raise BlockingIOError(f"Another process keeps the TensorBoard view {directory}. Stop it first.") from None
    except OSError:
        pass
    return mark


def plan_runs(stitched: Stitched) -> dict[str, Curves]:
    """What each TensorBoard run shall show, by name: every job that kept a point, in order, then `stitched`.

    A job's curve begins with a bridge, the last point of the jobs before, so that the line has no gap. It
    carries the wall time of the job's own first point: on the relative axis a job must not begin with the
    time it queued.
    """
    runs: dict[str, dict[str, Points]] = {job.label: {} for job in stitched.jobs}
    whole: dict[str, Points] = {}
    for tag in stitched.tags:
        segments = stitched.kept(tag)
        for before, segment in zip((None, *segments), segments, strict=False):
            points = segment.points
            if before is not None:
                last = before.points[-1:]
                points = join_points([Points(last.steps, points.wall_times[:1], last.values), points])
            runs[segment.job.label][tag] = points
        if segments:
            whole[tag] = stitched.curve(tag)
    return {name: curves for name, curves in (*runs.items(), (STITCHED, whole)) if curves}


def _in_step_order(curves: Curves) -> list[tuple[str, int, float, float]]:
    """All points as (tag, step, wall time, value), by step and then tag."""
    rows = [
        (tag, step, wall_time, value)
        for tag, points in curves.items()
        for step, wall_time, value in zip(
            points.steps.tolist(), points.wall_times.tolist(), points.values.tolist(), strict=True
        )
    ]
    return sorted(rows, key=lambda row: (row[1], row[0]))
