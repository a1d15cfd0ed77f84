"""The starts of a training that something else than hpcft ran: found as event files in folders.

Each restart of transformers, Lightning or a plain SummaryWriter leaves a folder of its own, or another file in the same
folder. What follows from their steps and clocks is in `infer`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from hpcft.curves.frames import Tail, read_frames
from hpcft.curves.points import Points
from hpcft.curves.reader import Damage
from hpcft.curves.stitch import JobCurve, Stitcher

MARK = ".hpcft-view"
"""Stands in a view: what lies there was stitched already."""
_FILE_TIME = re.compile(r"\.tfevents\.(\d{9,11})\.")
_HEAD = 4
"""Events at the beginning of a file among which the writer's purge mark stands."""
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class EventFile:
    """One event file, as far as it is written."""

    path: Path
    began: float
    """Seconds since 1970, by its events; by its name where none has a time."""
    ended: float
    """Of its last scalar; as `began` where it has none."""
    curves: Mapping[str, Points]
    """By tag."""
    purge: int | None
    """From which step on its writer told TensorBoard to forget earlier points (purge_step); None if it did not."""
    damage: Damage


@dataclass(frozen=True)
class Start:
    """One process's part of the training."""

    name: str
    """Its folder, below the one that was named; with the file's place in it where each file is a start."""
    files: tuple[EventFile, ...]
    """One, or several that wrote at the same time."""
    curves: Mapping[str, Points]

    @property
    def began(self) -> float:
        """Seconds since 1970, by its own clock."""
        return min(file.began for file in self.files)

    @property
    def ended(self) -> float:
        return max(file.ended for file in self.files)

    @property
    def purge(self) -> int | None:
        """As of its files; the first that has one."""
        return next((file.purge for file in self.files if file.purge is not None), None)

    @property
    def first_step(self) -> int | None:
        """None where it has logged no scalar; so is `last_step`."""
        return min((int(points.steps[0]) for points in self.curves.values()), default=None)

    @property
    def last_step(self) -> int | None:
        return max((int(points.steps[-1]) for points in self.curves.values()), default=None)


@dataclass(frozen=True)
class Found:
    """What lies in the folders."""

    starts: tuple[Start, ...]
    """In the order of their clocks, or as they were named."""
    left_out: tuple[Path, ...]
    """Folders below a start's own that have curves of their own, as `add_scalars` makes them."""


class Reader:
    """Finds the starts in some folders again and again; reads only files that have grown since."""

    def __init__(self, roots: Sequence[Path], *, in_order: bool = False) -> None:
        """`roots`: folders with event files anywhere below, or event files. `in_order`: they are named in the order in
        which they ran, and clocks do not count."""
        self._roots = roots
        self.by_clock = not in_order
        """Whether clocks put the starts in order."""
        self._stage = Path(tempfile.mkdtemp(prefix="hpcft-starts-"))
        self._stitchers: dict[Path, Stitcher] = {}
        self._folders: dict[tuple[Path, ...], Path] = {}
        self._heads: dict[Path, tuple[float, int | None]] = {}

    def close(self) -> None:
        """Remove what was laid out for the stitcher: links, no files."""
        shutil.rmtree(self._stage, ignore_errors=True)

    def size(self) -> int:
        """Bytes of all the event files there are."""
        found = [folder for root in self._roots for folder in event_folders(root)]
        paths = [path for _, own, below in found for path in (*own, *(path for _, more in below for path in more))]
        return sum(path.stat().st_size for path in paths if path.exists())

    def find(self) -> Found:
        """All starts, as they are now; never raises OSError for what somebody removes meanwhile."""
        starts: list[Start] = []
        left_out: list[Path] = []
        for root in self._roots:
            base = root if root.is_dir() else root.parent
            for folder, paths, below in event_folders(root):
                files = [self._read(path) for path in paths]
                for sub, more in below:
                    beside = [self._read(path) for path in more]
                    if any(file.curves for file in beside):
                        left_out.append(sub)
                    else:
                        files += beside  # hyperparameters, which torch writes into a folder of their own
                name = folder.name if folder == base else str(folder.relative_to(base))
                starts += group(name, files)
        if self.by_clock:
            starts.sort(key=lambda start: start.began)
        return Found(tuple(starts), tuple(left_out))

    def job_curves(self, starts: Sequence[Start], resume_steps: Sequence[int | None]) -> list[JobCurve]:
        """The starts as the stitcher wants them, each with the step at which it is taken to have gone on."""
        curves = []
        for number, (start, step) in enumerate(zip(starts, resume_steps, strict=True), 1):
            label = f"start{number:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', start.name.rpartition('/')[2])}"
            folder = self._lay_out([file.path for file in start.files])
            curves.append(JobCurve(label, number, 1, folder, step))
        return curves

    def _read(self, path: Path) -> EventFile:
        stitcher = self._stitchers.setdefault(path, Stitcher())
        # All its points: from step 0 on, with nobody behind it.
        found = stitcher.stitch([JobCurve("file", 1, 1, self._lay_out([path]), 0)])
        curves = {tag: found.curve(tag) for tag in found.tags}
        curves = {tag: points for tag, points in curves.items() if len(points)}
        head, purge = self._heads.get(path) or _head(path)
        if curves:  # then its head is whole
            self._heads[path] = head, purge
        first, last = (_times(curves, place) for place in (0, -1))
        times = [time for time in (head, *first) if math.isfinite(time)]
        began = min(times) if times else _named_time(path)
        return EventFile(path, began, max(last, default=began), curves, purge, found.damage["file"])

    def _lay_out(self, paths: Sequence[Path]) -> Path:
        """A folder with links to these files and no others; the same one each time."""
        key = tuple(paths)
        if key not in self._folders:
            folder = self._folders[key] = self._stage / f"{len(self._folders):05d}"
            folder.mkdir()
            for number, path in enumerate(paths, 1):
                (folder / f"{number:03d}.{path.name}").symlink_to(path.resolve())
        return self._folders[key]


Folder = tuple[Path, list[Path], list[tuple[Path, list[Path]]]]
"""A folder with event files, these, and the folders below it that have some, with theirs."""


def event_folders(root: Path) -> Iterator[Folder]:
    """The topmost folders at and below `root` that hold event files, by name, each with what lies below it.

    Links are followed, a folder is taken once, and views are left alone.
    """
    if root.is_file():
        yield root.parent, [root], []
        return
    within: list[tuple[Path, list[Path]]] = list(_walk(root, set()))
    tops: dict[Path, Folder] = {}
    for folder, paths in within:
        top = next((above for above in folder.parents if above in tops), None)
        if top is None:
            tops[folder] = folder, paths, []
        else:
            tops[top][2].append((folder, paths))
    yield from tops.values()


def _walk(folder: Path, seen: set[str]) -> Iterator[tuple[Path, list[Path]]]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == MARK for entry in entries):
        return
    named = [entry for entry in entries if ".tfevents." in entry.name]
    if files := [Path(entry.path) for entry in named if _holds(entry.is_file)]:
        yield folder, files
    for entry in entries:
        if _holds(entry.is_dir):
            yield from _walk(Path(entry.path), seen)


def _holds(what: Callable[[], bool]) -> bool:
    """Whether an entry is that; not where the system does not say, as of a link to itself or into a closed folder."""
    try:
        return what()
    except OSError:
        return False


def group(name: str, files: Sequence[EventFile]) -> list[Start]:
    """The files of one folder as starts: each with curves is one, those that wrote different tags at the same time
    are one together, and one without curves belongs to the start that it was begun with."""
    with_curves = sorted((file for file in files if file.curves), key=lambda file: file.began)
    groups: list[list[EventFile]] = []
    for file in with_curves:
        together = groups[-1] if groups else []
        meanwhile = bool(together) and file.began < max(other.ended for other in together)
        if meanwhile and not any(file.curves.keys() & other.curves.keys() for other in together):
            together.append(file)
        else:
            groups.append([file])
    for file in files:
        if not file.curves:
            # A writer opens the file of its settings a moment before or after that of its curves.
            nearest = min(groups, key=lambda together: abs(together[0].began - file.began), default=None)
            if nearest is None:
                groups.append([file])
            else:
                nearest.append(file)
    several = len(groups) > 1
    return [
        Start(
            f"{name}.{number}" if several else name,
            tuple(together),
            {tag: points for file in together for tag, points in file.curves.items()},
        )
        for number, together in enumerate(groups, 1)
    ]


def overlapping(starts: Sequence[Start]) -> list[tuple[int, int]]:
    """Pairs of consecutive starts, by their places, of which the second began while the first still wrote."""
    pairs = enumerate(pairwise(starts))
    return [(place, place + 1) for place, (one, next_) in pairs if one.curves and next_.began < one.ended]


def _head(path: Path) -> tuple[float, int | None]:
    """When a file was begun, by its first event, NaN where it has none yet; and the step of its purge mark."""
    began, purge = math.nan, None
    with contextlib.suppress(OSError, DecodeError), path.open("rb") as file:
        for payload in _first_payloads(file):
            event = Event.FromString(payload)
            if not math.isfinite(began):
                began = event.wall_time
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                purge = int(event.step)
    return began, purge


def _first_payloads(file: IO[bytes]) -> list[bytes]:
    """The first `_HEAD` events of a file, or all that are sound; among them may be a model's graph, which is large."""
    data = file.read(_HEAD_BYTES)
    frames = read_frames(data)
    while len(frames.spans) < _HEAD and frames.tail is not Tail.CORRUPT and (more := file.read(len(data))):
        data += more
        frames = read_frames(data)
    return frames.payloads[:_HEAD]


def _times(curves: Mapping[str, Points], place: int) -> list[float]:
    """When each tag's first point was logged, with place 0, or its last, with -1; of those that have a time."""
    times = [float(points.wall_times[place]) for points in curves.values()]
    return [time for time in times if math.isfinite(time)]


def _named_time(path: Path) -> float:
    if named := _FILE_TIME.search(path.name):
        return float(named[1])
    try:
        return path.stat().st_mtime
    except OSError:
        return math.inf
