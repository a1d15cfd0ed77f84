"""The framing of event files (TFRecord), with both checksums checked and a reader that survives damage.

A frame is: length (8 bytes, little endian), masked CRC32C of the length (4), data, masked CRC32C of the
data (4). Stock readers stop at the first bad frame and lose the rest of the file; this one skips it and
goes on.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hpcft.curves.crc import masked_crc32c, masked_crc32c_many, windows

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _CRC.size
_LONGEST = 1 << 30
"""Bytes. A length above one GiB is damage, not data: event files hold nothing that large."""
_WINDOW = 1 << 18
"""Bytes. As much is searched for a frame at a time."""


class Tail(Enum):
    """How the bytes after the last good frame look."""

    WHOLE = "whole"
    """There are none."""
    SHORT = "short"
    """A frame has begun and its end is not there yet: wait, the rest may come."""
    CORRUPT = "corrupt"
    """No frame begins here. (On NFS zeros may turn into the true bytes later.)"""


@dataclass(frozen=True)
class Frames:
    """What `read_frames` or `rescue_frames` understood of some bytes."""

    data: bytes
    """Those bytes."""
    spans: NDArray[np.int64]
    """Of the data of each good frame, in order: where it begins, and its length; a row each."""
    holes: list[tuple[int, int]]
    """What was passed over for a later frame: a bad one, or what belongs to none. Begin, and the first byte behind."""
    end: int
    """Offset just behind the last frame whose length was right: where to read on."""
    tail: Tail
    """What stands at `end`."""
    bad_frames: int
    """Frames that were whole but whose data did not match its checksum; skipped."""
    doubt: int
    """`end`, or where the last frame begins if it is a bad one: then its length may have been another's."""
    lost_bytes: int = 0
    """Bytes that belong to no frame, jumped over to reach a later good one or left at the end."""
    settled: bool = True
    """Whether bytes that are added cannot make another frame of what has been passed over."""

    @property
    def payloads(self) -> list[bytes]:
        """The data of each good frame, in order."""
        return [self.data[at : at + length] for at, length in self.spans.tolist()]


@lru_cache(maxsize=4096)
def _header(length: int) -> bytes:
    return _HEADER.pack(length, masked_crc32c(struct.pack("<Q", length)))


def encode_frame(data: bytes) -> bytes:
    """`data` as one frame, 16 bytes longer."""
    return _header(len(data)) + data + _CRC.pack(masked_crc32c(data))


def encode_frames(payloads: list[bytes]) -> bytes:
    """Many payloads as frames, one after the other; the checksums are computed together."""
    lengths = np.array([len(data) for data in payloads], dtype=np.int64)
    raw, offsets = unsealed(lengths)
    for at, data in zip(offsets.tolist(), payloads, strict=True):
        raw[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)
    return seal(raw, offsets, lengths)


def unsealed(lengths: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Room for frames with data of these lengths, one after the other, and where the data of each is to stand."""
    raw = np.zeros(int(lengths.sum()) + _OVERHEAD * len(lengths), dtype=np.uint8)
    return raw, np.cumsum(lengths + _OVERHEAD) - lengths - _CRC.size


def seal(raw: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """The frames, when their data stand in the room that `unsealed` gave: lengths and checksums are put around."""
    if not len(lengths):
        return b""
    kinds, which = np.unique(lengths, return_inverse=True)
    headers = np.frombuffer(b"".join(map(_header, kinds.tolist())), dtype=np.uint8).reshape(-1, _HEADER.size)
    windows(raw, _HEADER.size)[offsets - _HEADER.size] = headers[which]
    crc = masked_crc32c_many(raw, offsets, lengths).astype("<u4")
    windows(raw, _CRC.size)[offsets + lengths] = crc.view(np.uint8).reshape(-1, _CRC.size)
    return raw.tobytes()


def read_frames(data: bytes, start: int = 0) -> Frames:
    """The frames from offset `start` on, up to the first place where none begins or one is not whole yet."""
    lengths: list[int] = []
    offset, size, tail = start, len(data), Tail.WHOLE
    known: dict[int, int] = {}  # checksums of the lengths so far: few lengths, many frames
    while offset < size:
        if size - offset < _HEADER.size:
            tail = Tail.SHORT
            break
        length, crc = _HEADER.unpack_from(data, offset)
        if known.get(length) != crc:
            if length > _LONGEST or data[offset : offset + _HEADER.size] != _header(length):
                tail = Tail.CORRUPT
                break
            known[length] = crc
        behind = offset + length + _OVERHEAD
        if behind > size:
            tail = Tail.SHORT
            break
        lengths.append(length)
        offset = behind
    sizes = np.array(lengths, dtype=np.int64)
    spans = np.stack([start + np.cumsum(sizes + _OVERHEAD) - sizes - _CRC.size, sizes], axis=1)
    good = _are_sound(data, spans)
    bad = spans[~good].tolist()
    holes = [(at - _HEADER.size, at + length + _CRC.size) for at, length in bad]
    doubt = offset if good[-1:].all() else int(spans[-1, 0]) - _HEADER.size
    return Frames(data, spans[good], holes, offset, tail, len(bad), doubt)


def rescue_frames(data: bytes) -> Frames:
    """Every good frame of a whole file, also those behind damage; what had to be jumped over is counted."""
    result = read_frames(data)
    spans, holes, bad_frames, lost, settled = [result.spans], result.holes, result.bad_frames, 0, True
    while result.tail is not Tail.WHOLE:
        # A frame that was cut off and written on behind has swallowed the beginning of the next one.
        found = find_frame(data, result.doubt + 1)
        if found is None:
            lost += len(data) - result.end
            break
        lost += max(0, found - result.end)
        settled = settled and result.tail is not Tail.SHORT
        holes.append((result.doubt, max(found, result.end)))
        result = read_frames(data, found)
        spans.append(result.spans)
        holes += result.holes
        bad_frames += result.bad_frames
    sound = np.concatenate(spans)
    return Frames(data, sound, holes, result.end, result.tail, bad_frames, result.doubt, lost, settled)


def find_frame(data: bytes, start: int) -> int | None:
    """The first offset from `start` on where a frame with both checksums right begins, or None."""
    for begin in range(start, len(data) - _OVERHEAD + 1, _WINDOW):
        found = _find_in_window(data, begin)
        if found is not None:
            return found
    return None


def _find_in_window(data: bytes, start: int) -> int | None:
    window = np.frombuffer(data, dtype=np.uint8)[start : start + _WINDOW + _OVERHEAD - 1]
    places = np.arange(window.size - _OVERHEAD + 1)
    right = masked_crc32c_many(window, places, np.full(len(places), 8)) == _stored(window, places + 8)
    for candidate in np.flatnonzero(right).tolist():
        offset = start + candidate
        length = int.from_bytes(data[offset : offset + 8], "little")
        if length <= len(data) - offset - _OVERHEAD:
            span = np.array([[offset + _HEADER.size, length]])
            if _are_sound(data, span)[0]:
                return offset
    return None


def _are_sound(data: bytes, spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the CRC behind each frame's data is theirs."""
    if not len(spans):
        return np.zeros(0, dtype=np.bool_)
    raw = np.frombuffer(data, dtype=np.uint8)
    offsets, lengths = spans[:, 0], spans[:, 1]
    return np.asarray(masked_crc32c_many(raw, offsets, lengths) == _stored(raw, offsets + lengths))


def _stored(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The CRCs that stand there."""
    return np.asarray(windows(raw, _CRC.size)[places].view("<u4")[:, 0])
