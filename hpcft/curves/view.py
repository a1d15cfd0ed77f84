"""The directory that TensorBoard shows of a run, kept in step with it.

A derived directory: all in it can be made again from what the jobs have logged. And it is its own record: what it shows
is read back from it, so that whoever keeps it may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from hpcft.curves.events import file_name, start_event, version_event
from hpcft.curves.frames import encode_frame, encode_frames
from hpcft.curves.points import Points
from hpcft.curves.raw import RAW
from hpcft.curves.rewind import Update, plan_update
from hpcft.curves.scalars import Column, encode
from hpcft.curves.shown import Shown, is_ours, read_shown
from hpcft.curves.stitch import JobCurve, Stitched, Stitcher
from hpcft.curves.viewplan import CHAIN, PICTURES, STITCHED, Picture, Run, plan_chain, plan_pictures, plan_runs

__all__ = ["RELOAD_SECONDS", "STITCHED", "Picture", "View"]

RELOAD_SECONDS = 5
"""How often our TensorBoard looks for new data."""
SECONDS_AWAY = 2 * RELOAD_SECONDS + 1
"""A directory that must begin anew stays away this long, so that TensorBoard notices and forgets it."""
_MARK = ".hpcft-view"
_AWAY = ".away-"
"""Begins the name of a mark that a directory has been taken away, and may still be on show."""
_BLOCK = 1 << 16
"""Events that are made at a time."""


class View:
    """Keeps a directory of event files in step with a run, one `poll` at a time; one View per directory.

    TensorBoard may run all the while: files only grow. A View of a directory that already is one goes on with it.
    """

    def __init__(self, directory: Path) -> None:
        """Raises FileExistsError where `directory` holds other files, OSError if it cannot be made.

        BlockingIOError where another process has a View of it: two writers would spoil each other's files.
        """
        if directory.is_dir() and not (directory / _MARK).exists() and any(directory.iterdir()):
            raise FileExistsError(f"{directory} holds files that hpcft did not make. Name another directory.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory)
        self._directory = directory
        self._stitcher = Stitcher()
        self._shown: dict[str, Shown] = {}
        self._away_until: dict[str, float] = {}
        self._prints: dict[Path, tuple[tuple[float, int], int]] = {}
        for path in directory.iterdir():
            if path.name.startswith(_AWAY):
                self._away_until[path.name.removeprefix(_AWAY)] = time.monotonic() + SECONDS_AWAY
            elif path.is_dir() and is_ours(path):  # what else somebody has put there stays
                self._read_back(path.name)

    def poll(
        self,
        jobs: Sequence[JobCurve],
        pictures: Sequence[Picture] = (),
        table: Callable[[Stitched], str] | None = None,
    ) -> Stitched:
        """The curves of `jobs` (oldest first), after the directory was brought up to date with them and the pictures.

        `table` gives the jobs as Markdown, for the text tab. A TensorBoard run whose first points were superseded is
        away for `SECONDS_AWAY` and returns at a later poll. Raises OSError when the view cannot be written; a later
        poll makes good what is missing.
        """
        self._stand()
        stitched = self._stitcher.stitch(jobs)
        wanted = plan_runs(stitched)
        if pictures:
            wanted[PICTURES] = plan_pictures(pictures, self._prints)
        if table:
            wanted[CHAIN] = plan_chain(table(stitched), stitched, wanted)
        for name in [name for name in self._shown if name not in wanted]:
            self._remove(name)
        for name, run in wanted.items():
            if time.monotonic() >= self._away_until.get(name, 0.0):
                self._update(name, run)
        return stitched

    def _stand(self) -> None:
        """Begin anew where somebody has removed the directory."""
        if (self._directory / _MARK).exists():
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self._directory)
        for name in [*self._shown]:
            self._remove(name)

    def _update(self, name: str, wanted: Run) -> None:
        shown = self._shown.get(name) or Shown()
        path = self._directory / name / file_name(shown.sequence)
        if shown.curves and not (path if shown.begun else path.parent).exists():  # somebody has removed it
            self._remove(name)
            return
        update = plan_update(shown.curves, wanted.curves)
        if update is None:
            self._remove(name)
            return
        if not update.points:
            return
        try:
            (self._directory / (_AWAY + name)).unlink(missing_ok=True)
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                for block in _events(update, wanted, fresh=file.tell() == 0, started=shown.started):
                    file.write(block)
        except OSError:
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()  # a disk that stays full must not be filled with empty files
            self._read_back(name)  # a half-written frame would hide all that follows it in its file
            raise
        self._shown[name] = Shown(dict(wanted.curves), shown.sequence, begun=True, started=True)

    def _read_back(self, name: str) -> None:
        """Take what is on the disk as shown, or take it away where it is not sound."""
        try:
            shown = read_shown(self._directory / name)
        except OSError:
            shown = None
        if shown is None:
            self._remove(name)
        else:
            self._shown[name] = shown

    def _remove(self, name: str) -> None:
        self._shown.pop(name, None)
        self._away_until[name] = time.monotonic() + SECONDS_AWAY
        shutil.rmtree(self._directory / name, ignore_errors=True)
        (self._directory / (_AWAY + name)).touch()


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


def _events(update: Update, run: Run, *, fresh: bool, started: bool) -> Iterator[bytes]:
    """Frames to append: scalars by step and then tag, a block at a time, then all else."""
    begun = min(float(points.wall_times[0]) for points in update.points.values())
    head = [version_event(begun)] if fresh else []
    if not started:
        head.append(start_event(0, begun))
    if update.start is not None:
        head.append(start_event(update.start, begun))
    yield encode_frames(head)
    scalars = {tag: points for tag, points in update.points.items() if not tag.startswith(RAW)}
    places = _places(scalars)
    for begin in range(0, sum(map(len, scalars.values())), _BLOCK):
        columns = {}
        for tag, points in scalars.items():
            first, last = np.searchsorted(places[tag], (begin, begin + _BLOCK)).tolist()
            some = points[first:last]
            if len(some):
                columns[tag] = Column(places[tag][first:last] - begin, some.steps, some.wall_times, some.values)
        yield encode(columns)
    for tag, points in update.points.items():
        if tag in scalars:
            continue
        for step, when, print_ in zip(
            *(c.tolist() for c in (points.steps, points.wall_times, points.values)), strict=True
        ):
            try:
                event = run.raw[tag][step, print_].event(step, when)
            except (OSError, DecodeError):
                continue  # its file is gone or another since it was read: it is left out, as the next poll may find
            yield encode_frame(event)


def _places(curves: Mapping[str, Points]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Of each tag's points, their places among all by step and then tag."""
    if not curves:
        return {}
    steps = np.concatenate([points.steps for points in curves.values()])
    tags = np.repeat(np.arange(len(curves)), [len(points) for points in curves.values()])
    places = np.empty(len(steps), dtype=np.int64)
    places[np.lexsort((tags, steps))] = np.arange(len(steps))
    ends = np.cumsum([len(points) for points in curves.values()]).tolist()
    return {tag: places[begin:end] for tag, begin, end in zip(curves, [0, *ends], ends, strict=False)}
