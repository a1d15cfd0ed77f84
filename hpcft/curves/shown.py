"""What TensorBoard shows of a directory, read back from its event files: a view is its own record."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from hpcft.curves.frames import Frames
from hpcft.curves.points import Points, join_points, make_points
from hpcft.curves.raw import describe, raw_key
from hpcft.curves.rewind import Curve, Part
from hpcft.curves.scalars import decode
from hpcft.curves.tail import FileTail

_FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.hpcft")


@dataclass
class Shown:
    """One TensorBoard run on the disk."""

    curves: dict[str, Curve] = field(default_factory=dict)
    """As in `viewplan.Run`."""
    sequence: int = 1
    """Number of the file to write to. One that may be torn is not written to again: a higher one is begun."""
    begun: bool = False
    """Whether that file is there."""
    started: bool = False
    """Whether it has a START yet, the first of which the Python readers do not heed."""


def is_ours(directory: Path) -> bool:
    """Whether there is nothing but event files of a view."""
    return all(_FILE_NAME.fullmatch(path.name) for path in directory.iterdir())


def read_shown(directory: Path) -> Shown | None:
    """What a directory of our own shows, with a new file to go on in; None where it is damaged.

    Raises OSError. A file that was torn at its end by a kill is sound: readers take what is before the tear.
    """
    points: dict[str, Points] = {}
    shown = Shown()
    for path in sorted(directory.iterdir()):
        if found := _FILE_NAME.fullmatch(path.name):
            shown.sequence = int(found[1]) + 1
        else:
            return None
        tail = FileTail(path)
        for frames in tail.read():
            if frames is None:
                continue
            if frames.holes:
                return None
            shown.started = _apply(frames, points, shown.started)
    shown.curves = {tag: (Part(of_tag),) for tag, of_tag in points.items() if len(of_tag)}
    return shown


def _apply(frames: Frames, points: dict[str, Points], started: bool) -> bool:
    """Change the points as TensorBoard's readers do; returns whether there was a START."""
    columns, others = decode(frames.data, frames.spans)
    starts: list[tuple[int, int]] = []
    raw: dict[str, list[tuple[int, int, float, float]]] = {}
    for place in others:
        at, size = frames.spans[place].tolist()
        event = Event.FromString(frames.data[at : at + size])
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            if started:
                starts.append((place, event.step))
            started = True
        for said in describe(event, {}):
            raw.setdefault(raw_key(said.place, said.tag), []).append(
                (place, event.step, event.wall_time, float(said.print))
            )
    new = {tag: (c.places, Points(c.steps, c.wall_times, c.values)) for tag, c in columns.items()}
    for key, found in raw.items():
        places = np.array([row[0] for row in found])
        arrays = (np.array([row[column] for row in found]) for column in (1, 2, 3))
        new[key] = (places, Points(*arrays))
    begin = -1
    for end, step in [*starts, (len(frames.spans), None)]:
        for tag, (places, column) in new.items():
            some = column[(places > begin) & (places < end)]
            if len(some):
                old = points.get(tag, make_points([]))
                points[tag] = join_points([old[: int(np.searchsorted(old.steps, some.steps[0]))], some])
        if step is not None:
            for tag, old in points.items():
                points[tag] = old[: int(np.searchsorted(old.steps, step))]
        begin = end
    return started
