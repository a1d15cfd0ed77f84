"""Scalar events by the thousand: taken apart and put together as columns of bytes, a layout at a time.

Events of one tag whose steps take as many bytes differ in three places alone: wall time, step and value. So a file is
read layout by layout: of the first event that is left the places are found by hand, all that agree with it elsewhere
are taken at once, and so on. What is no plain scalar is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hpcft.curves.events import scalar_event
from hpcft.curves.frames import seal, unsealed

_STRANGE = 8
"""Events of one length that are no plain scalar; then the rest of that length is left to protobuf too."""


_LAYOUTS = 64
"""Layouts of one length: each is a look at all events of that length that are left. As above of what remains."""


@dataclass(frozen=True)
class Column:
    """The events of one tag, in the order they were logged."""

    places: NDArray[np.int64]
    """Which frame each was."""
    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where in an event its numbers stand."""

    tag: str
    wall_time: int
    step: int
    step_bytes: int
    """0 where it is left out, which means step 0."""
    value: int


def decode(data: bytes, spans: Sequence[tuple[int, int]]) -> tuple[dict[str, Column], list[int]]:
    """By tag the plain scalars among these events, and which of them are something else; see `Frames.spans`."""
    offsets = np.array([at for at, _ in spans], dtype=np.int64)
    lengths = np.array([length for _, length in spans], dtype=np.int64)
    raw = np.frombuffer(data, dtype=np.uint8)
    found: dict[str, list[Column]] = {}
    others: list[int] = []
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        if length == 0:
            others += places.tolist()
            continue
        rows = sliding_window_view(raw, length)[offsets[places]]
        strange = layouts = 0
        while len(places):
            layout = find_layout(rows[0].tobytes()) if layouts < _LAYOUTS else None
            layouts += 1
            if layout is None:
                strange += 1
                first = len(places) if strange == _STRANGE or layouts > _LAYOUTS else 1
                others += places[:first].tolist()
                places, rows = places[first:], rows[first:]
                continue
            alike = _alike(rows, layout)
            found.setdefault(layout.tag, []).append(_column(places[alike], rows[alike], layout))
            places, rows = places[~alike], rows[~alike]
    return {tag: join_columns(columns) for tag, columns in found.items()}, sorted(others)


def join_columns(columns: Sequence[Column]) -> Column:
    """All of them in the order they were logged."""
    if len(columns) == 1:
        return columns[0]
    places = np.concatenate([column.places for column in columns])
    order = np.argsort(places, kind="stable")
    return Column(
        places[order],
        np.concatenate([column.steps for column in columns])[order],
        np.concatenate([column.wall_times for column in columns])[order],
        np.concatenate([column.values for column in columns])[order],
    )


def find_layout(event: bytes) -> Layout | None:
    """The layout of an event that has a wall time, one scalar and nothing else but a step; None of any other."""
    try:
        fields = list(_fields(event, 0, len(event)))
        numbers = [number for number, _, _ in fields]
        if numbers not in ([1, 2, 5], [1, 5]) or fields[0][2] - fields[0][1] != 8:
            return None
        values = list(_fields(event, *fields[-1][1:]))
        if [number for number, _, _ in values] != [1]:
            return None
        inside = {number: (at, end) for number, at, end in _fields(event, *values[0][1:])}
        if not {1, 2} <= inside.keys() <= {1, 2, 9} or inside[2][1] - inside[2][0] != 4:
            return None
        tag = event[slice(*inside[1])].decode()
    except (IndexError, ValueError):
        return None
    step = fields[1][1:] if len(fields) == 3 else (0, 0)
    return Layout(tag, fields[0][1], step[0], step[1] - step[0], inside[2][0])


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a protobuf message. Raises ValueError or IndexError if it is none."""
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 2:
            size, at = _varint(data, at)
        elif kind == 0:
            size = _varint(data, at)[1] - at
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > end:
            raise ValueError("not a message")
        yield key >> 3, at, at + size
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the place behind it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 56:
            raise ValueError("a negative number, or none")


def _alike(rows: NDArray[np.uint8], layout: Layout) -> NDArray[np.bool_]:
    """Which of the events have the first one's layout."""
    free = np.zeros(rows.shape[1], dtype=np.bool_)
    free[layout.wall_time : layout.wall_time + 8] = True
    free[layout.value : layout.value + 4] = True
    step = rows[:, layout.step : layout.step + layout.step_bytes]
    free[layout.step : layout.step + layout.step_bytes] = True
    same = (rows[:, ~free] == rows[0, ~free]).all(axis=1)
    if layout.step_bytes:
        same &= (step[:, :-1] >= 0x80).all(axis=1) & (step[:, -1] < 0x80)
    return np.asarray(same)


def _column(places: NDArray[np.int64], rows: NDArray[np.uint8], layout: Layout) -> Column:
    steps = np.zeros(len(rows), dtype=np.int64)
    for byte in range(layout.step_bytes):
        steps |= (rows[:, layout.step + byte].astype(np.int64) & 0x7F) << (7 * byte)
    wall_times = np.ascontiguousarray(rows[:, layout.wall_time : layout.wall_time + 8]).view("<f8")[:, 0]
    values = np.ascontiguousarray(rows[:, layout.value : layout.value + 4]).view("<f4")[:, 0]
    return Column(places, steps, wall_times, values.astype(np.float64))


def encode(columns: Mapping[str, Column]) -> bytes:
    """Frames of scalar events, by their places, which are 0 and on over all columns; see `events.scalar_event`."""
    total = sum(len(column.places) for column in columns.values())
    lengths = np.zeros(total, dtype=np.int64)
    groups = [(column, *group) for tag, column in columns.items() for group in _by_layout(tag, column)]
    for column, chosen, event, _ in groups:
        lengths[column.places[chosen]] = len(event)
    raw, offsets = unsealed(lengths)
    for column, chosen, event, layout in groups:
        rows = np.tile(np.frombuffer(event, dtype=np.uint8), (len(chosen), 1))
        rows[:, layout.wall_time : layout.wall_time + 8] = _bytes(column.wall_times[chosen], "<f8")
        rows[:, layout.value : layout.value + 4] = _bytes(column.values[chosen], "<f4")
        steps = column.steps[chosen]
        for byte in range(layout.step_bytes):
            more = 0x80 if byte < layout.step_bytes - 1 else 0
            rows[:, layout.step + byte] = ((steps >> (7 * byte)) & 0x7F) | more
        sliding_window_view(raw, len(event), writeable=True)[offsets[column.places[chosen]]] = rows
    return seal(raw, offsets, lengths)


def _by_layout(tag: str, column: Column) -> Iterator[tuple[NDArray[np.int64], bytes, Layout]]:
    """Rows of a column whose events have one layout, with an event to fill in."""
    bits = np.maximum(column.steps, 1)
    sizes = np.zeros(len(bits), dtype=np.int64)
    while bits.any():
        sizes += bits > 0
        bits = bits >> 7
    sizes[column.steps == 0] = 0
    for size in np.unique(sizes).tolist():
        chosen = np.flatnonzero(sizes == size)
        event = scalar_event(tag, 1.0, int(column.steps[chosen[0]]), 1.0)
        layout = find_layout(event)
        assert layout is not None and layout.step_bytes == size
        yield chosen, event, layout


def _bytes(numbers: NDArray[np.float64], kind: str) -> NDArray[np.uint8]:
    """Each number's bytes in a row; one that is too large for the kind becomes infinite."""
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(numbers.astype(kind))
    return narrow.view(np.uint8).reshape(len(numbers), -1)
