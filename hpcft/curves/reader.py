"""What a job has logged, read as it grows, with all damage survived and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

from hpcft.curves.frames import Frames
from hpcft.curves.points import Points, Series, join_points, sort_points
from hpcft.curves.raw import Place, RawEvent, describe, scalar_of, sound_tag
from hpcft.curves.scalars import Column, decode, join_columns
from hpcft.curves.tail import FileTail


@dataclass(frozen=True)
class Damage:
    """What could not be read in one job's event files."""

    bad_frames: int = 0
    """Events whose checksum or content is wrong."""
    lost_bytes: int = 0
    """Bytes that belong to no event: the torn end of a killed job's file, or holes."""
    unreadable: tuple[str, ...] = ()
    """Files the system would not let us read, each with its reason."""


@dataclass(frozen=True)
class RawCurve:
    """The events of one tag that are no scalars."""

    place: Place
    points: Points
    """Their values are fingerprints of what is shown."""
    events: Mapping[tuple[int, float], RawEvent]
    """By step and fingerprint."""


@dataclass(frozen=True)
class JobPoints:
    """All that one job logged."""

    curves: Mapping[str, Points]
    """Scalars by tag."""
    damage: Damage = Damage()
    raw: Mapping[str, RawCurve] = field(default_factory=dict)
    """What is no scalar, by tag."""


def read_points(directory: Path) -> JobPoints:
    """What is in a directory's event files, read in name order; nothing where there is no such directory.

    Never raises OSError: what the system refuses is named in `damage.unreadable`.
    """
    return JobReader(directory).poll()


def event_files(directory: Path) -> list[Path]:
    """A directory's event files in the order they were begun; none where there is none. Raises OSError."""
    try:
        return sorted(path for path in directory.iterdir() if ".tfevents." in path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


class JobReader:
    """Reads the event files of one directory again and again, only what is new of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, _File] = {}
        self._unreadable: tuple[str, ...] = ()
        self._joined: dict[str, tuple[list[Points], Points]] = {}
        self._last: JobPoints | None = None

    def poll(self) -> JobPoints:
        """All so far; the very same object as long as nothing is new. Never raises OSError."""
        try:
            paths = event_files(self._directory)
        except OSError as error:  # out of reach for now: what it had is still true
            last = self._last or JobPoints({})
            away = (f"{self._directory.name}: {error.strerror}",)
            return replace(last, damage=replace(last.damage, unreadable=away))
        gone = self._files.keys() - set(paths)
        for path in gone:
            del self._files[path]
        changed, unreadable = bool(gone), []
        for path in paths:
            file = self._files.setdefault(path, _File(path))
            try:
                changed = file.poll() or changed
            except OSError as error:
                unreadable.append(f"{path.name}: {error.strerror}")
        if self._last is None or changed or self._unreadable != tuple(unreadable):
            self._unreadable = tuple(unreadable)
            self._last = self._join([self._files[path] for path in paths])
        return self._last

    def _join(self, files: list[_File]) -> JobPoints:
        curves = {tag: self._curve(tag, files) for tag in dict.fromkeys(tag for file in files for tag in file.series)}
        raw = {tag: _join_raw(tag, files) for tag in dict.fromkeys(tag for file in files for tag in file.raw)}
        bad_frames = sum(file.tail.bad_frames + file.senseless for file in files)
        damage = Damage(bad_frames, sum(file.tail.lost_bytes for file in files), self._unreadable)
        return JobPoints(curves, damage, raw)

    def _curve(self, tag: str, files: list[_File]) -> Points:
        """The curve over all files, of which usually one has it."""
        parts = [file.series[tag] for file in files if tag in file.series]
        if len(parts) == 1:
            return parts[0].points
        now = [part.points for part in parts]
        known = self._joined.get(tag)
        if known is None or len(known[0]) != len(now) or any(a is not b for a, b in zip(*(known[0], now), strict=True)):
            whole = join_points(now)
            known = self._joined[tag] = (now, sort_points(whole.steps, whole.wall_times, whole.values))
        return known[1]


def _join_raw(tag: str, files: list[_File]) -> RawCurve:
    parts = [file.raw[tag] for file in files if tag in file.raw]
    whole = join_points([part.series.points for part in parts])
    events = {key: event for part in parts for key, event in part.events.items()}
    return RawCurve(parts[0].place, sort_points(whole.steps, whole.wall_times, whole.values), events)


@dataclass
class _Raw:
    """What one file has of a tag that is no scalar."""

    place: Place
    series: Series = field(default_factory=Series)
    events: dict[tuple[int, float], RawEvent] = field(default_factory=dict)


class _File:
    """One event file, and what was found in it."""

    def __init__(self, path: Path) -> None:
        self.tail = FileTail(path)
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self.series: dict[str, Series] = {}
        self.raw: dict[str, _Raw] = {}
        self.senseless = 0
        """Frames that are sound and hold no event."""
        self._metadata: dict[str, SummaryMetadata] = {}
        self._begun: float | None = None
        """The first time in the file."""

    def poll(self) -> bool:
        """Read on, and say whether anything is new. Raises OSError."""
        if not self.tail.changed():
            return False
        for frames in self.tail.read():
            if frames is None:
                self._forget()
            else:
                self._take(frames)
        return True

    def _take(self, frames: Frames) -> None:
        columns, others = decode(frames.data, frames.spans)
        parts = {tag: [column] for tag, column in columns.items()}
        self._note_begun(frames, columns, others)
        for place in others:
            at, length = frames.spans[place].tolist()
            try:
                event = Event.FromString(frames.data[at : at + length])
            except DecodeError:
                self.senseless += 1
                continue
            self._take_event(event, place, self.tail.offset_of(at), length, parts)
        for tag, found in parts.items():
            column = join_columns(found)
            if sound_tag(tag):
                series = self.series.setdefault(tag, Series())
                series.extend(column.steps, self._sound(column, series), column.values)
            else:
                self.senseless += len(column.steps)

    def _take_event(self, event: Event, place: int, offset: int, length: int, parts: dict[str, list[Column]]) -> None:
        for value in event.summary.value:
            number = scalar_of(value, self._metadata)
            if number is not None:
                with np.errstate(over="ignore"):
                    narrow = float(np.float32(number))  # as it will be shown
                column = Column(
                    np.array([place]), np.array([event.step]), np.array([event.wall_time]), np.array([narrow])
                )
                parts.setdefault(value.tag, []).append(column)
        for said in describe(event, self._metadata):
            raw = self.raw.setdefault(said.tag, _Raw(said.place))
            when = event.wall_time if np.isfinite(event.wall_time) else self._begun or 0.0
            raw.series.extend(np.array([event.step]), np.array([when]), np.array([float(said.print)]))
            copy = RawEvent(self._path, offset, length, said.value, said.metadata, said.print)
            raw.events[event.step, float(said.print)] = copy
        for value in event.summary.value:
            if value.HasField("metadata") and value.tag not in self._metadata:
                self._metadata[value.tag] = value.metadata

    def _note_begun(self, frames: Frames, columns: Mapping[str, Column], others: Sequence[int]) -> None:
        """Find the first time of all, as long as there is none."""
        if self._begun is not None:
            return
        times: list[tuple[int, float]] = []
        for column in columns.values():
            sound = np.flatnonzero(np.isfinite(column.wall_times))[:1]
            times += zip(column.places[sound].tolist(), column.wall_times[sound].tolist(), strict=True)
        for place in others[:1]:
            at, length = frames.spans[place].tolist()
            with contextlib.suppress(DecodeError):
                time = Event.FromString(frames.data[at : at + length]).wall_time
                times += [(place, time)] * bool(np.isfinite(time))
        self._begun = min(times)[1] if times else None

    def _sound(self, column: Column, series: Series) -> NDArray[np.float64]:
        """The wall times, each that is no number replaced by the one before it: at such a one the data server stops."""
        times = column.wall_times
        sound = np.isfinite(times)
        if sound.all():
            return times
        before = series.points.wall_times[-1] if len(series.points) else self._begun or 0.0
        places = np.maximum.accumulate(np.where(sound, np.arange(len(times)), -1))
        return np.where(places >= 0, times[places], before)
