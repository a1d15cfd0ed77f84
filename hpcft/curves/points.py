"""The points of one job's event files, read with all damage survived and counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event

from hpcft.curves.frames import rescue_frames


@dataclass(frozen=True)
class Points:
    """A curve's points, sorted by step: three arrays of one length."""

    steps: NDArray[np.int64]
    """Optimizer steps done, strictly increasing."""
    wall_times: NDArray[np.float64]
    """Seconds since 1970, by the clock of the node that logged the point."""
    values: NDArray[np.float64]
    """32-bit floats in truth; NaN and infinity stay what they are."""

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, which: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "Points":
        return Points(self.steps[which], self.wall_times[which], self.values[which])


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
class JobPoints:
    """All that one job logged, as `read_points` found it."""

    curves: Mapping[str, Points]
    """By tag."""
    damage: Damage


def make_points(rows: list[tuple[int, float, float]]) -> Points:
    """`Points` of (step, wall time, value) rows in the order they were logged; of equal steps the last stays.

    >>> make_points([(2, 0.0, 7.0), (1, 1.0, 8.0), (2, 2.0, 9.0)]).values
    array([8., 9.])
    """
    steps = np.array([row[0] for row in rows], dtype=np.int64)
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    last = np.append(steps[1:] != steps[:-1], True) if len(rows) else np.zeros(0, dtype=np.bool_)
    order = order[last]
    wall_times = np.array([row[1] for row in rows], dtype=np.float64)
    values = np.array([row[2] for row in rows], dtype=np.float64)
    return Points(steps[last], wall_times[order], values[order])


def join_points(parts: list[Points]) -> Points:
    """The parts one after the other; the caller sees to it that their steps increase."""
    if not parts:
        return make_points([])
    return Points(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.wall_times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def read_points(directory: Path) -> JobPoints:
    """The curves in a directory's event files, read in name order; empty where there is no such directory.

    Never raises OSError: what the system refuses is named in `damage.unreadable`.
    """
    rows: dict[str, list[tuple[int, float, float]]] = {}
    bad_frames, lost_bytes, unreadable = 0, 0, []
    for path in event_files(directory):
        try:
            data = path.read_bytes()
        except OSError as error:
            unreadable.append(f"{path.name}: {error.strerror}")
            continue
        frames = rescue_frames(data)
        lost_bytes += frames.lost_bytes
        bad_frames += frames.bad_frames + _collect(frames.payloads, rows)
    curves = {tag: make_points(of_tag) for tag, of_tag in rows.items()}
    return JobPoints(curves, Damage(bad_frames, lost_bytes, tuple(unreadable)))


def event_files(directory: Path) -> list[Path]:
    """A directory's event files in the order they were begun; none where it is missing or unreadable."""
    try:
        return sorted(path for path in directory.iterdir() if ".tfevents." in path.name)
    except OSError:
        return []


def _collect(payloads: list[bytes], rows: dict[str, list[tuple[int, float, float]]]) -> int:
    """Add the scalars of some events to `rows`; returns how many events made no sense."""
    bad = 0
    for payload in payloads:
        try:
            event = Event.FromString(payload)
        except DecodeError:
            bad += 1
            continue
        for value in event.summary.value:
            if value.HasField("simple_value"):
                rows.setdefault(value.tag, []).append((event.step, event.wall_time, value.simple_value))
    return bad
