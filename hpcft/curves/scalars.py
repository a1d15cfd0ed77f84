"""Scalar events by the thousand: taken apart and put together as columns of bytes, a layout at a time.

Events of one tag whose steps take as many bytes differ in three places alone: wall time, step and value. So a file is
read layout by layout: of the first event that is left the places are found by hand, all that agree with it elsewhere
are taken at once, and so on. What is no plain scalar is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.crc import windows
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


def decode(data: bytes, spans: NDArray[np.int64]) -> tuple[dict[str, Column], list[int]]:
    """By tag the plain scalars among these events, and which of them are something else; see `Frames.spans`."""
    offsets, lengths = spans[:, 0], spans[:, 1]
    raw = np.frombuffer(data, dtype=np.uint8)
    found: list[tuple[Layout, NDArray[np.int64]]] = []
    others: list[int] = []
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        if length == 0:
            others += places.tolist()
            continue
        rows = windows(raw, length)[offsets[places]]
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
            found.append((layout, places[alike]))
            places, rows = places[~alike], rows[~alike]
    columns: dict[str, list[Column]] = {}
    for (layout, _), column in zip(found, _columns(raw, offsets, found), strict=True):
        columns.setdefault(layout.tag, []).append(column)
    return {tag: join_columns(parts) for tag, parts in columns.items()}, sorted(others)


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
    fixed = np.full(rows.shape[1], 0xFF, dtype=np.uint8)
    fixed[layout.wall_time : layout.wall_time + 8] = 0
    fixed[layout.value : layout.value + 4] = 0
    fixed[layout.step : layout.step + layout.step_bytes] = 0x80  # this bit says whether another byte of it follows
    return np.asarray(~((rows ^ rows[0]) & fixed).any(axis=1))


def _columns(
    raw: NDArray[np.uint8], offsets: NDArray[np.int64], found: Sequence[tuple[Layout, NDArray[np.int64]]]
) -> list[Column]:
    """The numbers of the events of each layout, all of them read together."""
    if not found:
        return []
    counts = [len(places) for _, places in found]
    places = np.concatenate([places for _, places in found])
    wall_time, value, step, step_bytes = np.repeat([_numbers(layout) for layout, _ in found], counts, axis=0).T
    at = offsets[places]
    steps = np.zeros(len(at), dtype=np.int64)
    for byte in range(int(step_bytes.max())):
        has = step_bytes > byte
        steps[has] |= (raw[(at + step)[has] + byte].astype(np.int64) & 0x7F) << (7 * byte)
    wall_times = windows(raw, 8)[at + wall_time].view("<f8")[:, 0]
    values = windows(raw, 4)[at + value].view("<f4")[:, 0].astype(np.float64)
    ends = np.cumsum(counts).tolist()
    parts = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
    return [Column(places[part], steps[part], wall_times[part], values[part]) for part in parts]


def _numbers(layout: Layout) -> tuple[int, int, int, int]:
    return layout.wall_time, layout.value, layout.step, layout.step_bytes


_STEP_SIZES = np.array([1, *(1 << bits for bits in range(7, 63, 7))])
"""From each of them on a step takes a byte more; step 0 takes none."""


def encode(columns: Mapping[str, Column]) -> bytes:
    """Frames of scalar events, by their places, which are 0 and on over all columns; see `events.scalar_event`."""
    if not columns:
        return b""
    tags, parts = [*columns], [*columns.values()]
    places = np.concatenate([part.places for part in parts])
    steps = np.concatenate([part.steps for part in parts])
    sizes = np.searchsorted(_STEP_SIZES, steps, side="right")
    of_tag = np.repeat(np.arange(len(tags)), [len(part.places) for part in parts])
    _, first, which = np.unique(of_tag * 16 + sizes, return_index=True, return_inverse=True)
    events = [scalar_event(tags[of_tag[row]], 1.0, int(steps[row]), 1.0) for row in first.tolist()]
    lengths = np.empty(len(places), dtype=np.int64)
    lengths[places] = np.array([len(event) for event in events])[which]
    raw, offsets = unsealed(lengths)
    at = offsets[places]
    for number, event in enumerate(events):
        windows(raw, len(event))[at[which == number]] = np.frombuffer(event, dtype=np.uint8)
    wall_time, value, step, _ = np.array([_numbers(_layout_of(event)) for event in events])[which].T
    windows(raw, 8)[at + wall_time] = _bytes(np.concatenate([part.wall_times for part in parts]), "<f8")
    windows(raw, 4)[at + value] = _bytes(np.concatenate([part.values for part in parts]), "<f4")
    for byte in range(int(sizes.max())):
        has = sizes > byte
        more = np.where(sizes[has] > byte + 1, 0x80, 0)
        raw[(at + step)[has] + byte] = ((steps[has] >> (7 * byte)) & 0x7F) | more
    return seal(raw, offsets, lengths)


def _layout_of(event: bytes) -> Layout:
    layout = find_layout(event)
    assert layout is not None
    return layout


def _bytes(numbers: NDArray[np.float64], kind: str) -> NDArray[np.uint8]:
    """Each number's bytes in a row; one that is too large for the kind becomes infinite."""
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(numbers.astype(kind))
    return narrow.view(np.uint8).reshape(len(numbers), -1)
