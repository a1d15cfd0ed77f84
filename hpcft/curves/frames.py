"""The framing of event files (TFRecord), with both checksums checked and a reader that survives damage.

A frame is: length (8 bytes, little endian), masked CRC32C of the length (4), data, masked CRC32C of the
data (4). Stock readers stop at the first bad frame and lose the rest of the file; this one skips it and
goes on.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _CRC.size
_LONGEST = 1 << 30
"""Bytes. A length above one GiB is damage, not data: event files hold nothing that large."""
_MASK_DELTA = 0xA282EAD8
_WINDOW = 1 << 18
"""Bytes. As much is searched for a frame at a time."""
_MANY = 16
"""Frames. From this many of one length on, numpy's column-wise CRC is quicker than the plain loop."""


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli's polynomial, bits reversed
        table.append(crc)
    return table


_TABLE = _make_table()


def _make_numpy_tables() -> list[NDArray[np.uint32]]:
    """For a byte that is followed by 0, 1, 2 or 3 more: what it makes of the CRC (slicing by four)."""
    tables = [np.array(_TABLE, dtype=np.uint32)]
    for _ in range(3):
        before = tables[-1]
        tables.append(tables[0][before & np.uint32(0xFF)] ^ (before >> np.uint32(8)))
    return tables


_NUMPY_TABLES = _make_numpy_tables()


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
    spans: list[tuple[int, int]]
    """Of the data of each good frame, in order: where it begins, and its length."""
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
        return [self.data[at : at + length] for at, length in self.spans]


def crc32c(data: bytes) -> int:
    """The CRC32C (Castagnoli) of `data`, e.g. 0xE3069283 for b"123456789"."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """`crc` as event files store it; rotated, as the CRC of data that holds CRCs would be weak."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@lru_cache(maxsize=4096)
def _header(length: int) -> bytes:
    return _HEADER.pack(length, mask(crc32c(struct.pack("<Q", length))))


def encode_frame(data: bytes) -> bytes:
    """`data` as one frame, 16 bytes longer."""
    return _header(len(data)) + data + _CRC.pack(mask(crc32c(data)))


def encode_frames(payloads: list[bytes]) -> bytes:
    """Many payloads as frames, one after the other; the checksums are computed together, by length."""
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
    for length in np.unique(lengths).tolist():
        chosen = offsets[lengths == length]
        crc = _mask_array(_crc32c_columns(raw, chosen, length))
        around = np.frombuffer(_header(length), dtype=np.uint8)
        for byte in range(_HEADER.size):
            raw[chosen + (byte - _HEADER.size)] = around[byte]
        for byte in range(_CRC.size):
            raw[chosen + (length + byte)] = (crc >> np.uint32(8 * byte)) & np.uint32(0xFF)
    return raw.tobytes()


def read_frames(data: bytes, start: int = 0) -> Frames:
    """The frames from offset `start` on, up to the first place where none begins or one is not whole yet."""
    spans: list[tuple[int, int]] = []
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
        spans.append((offset + _HEADER.size, length))
        offset = behind
    good = _check_spans(data, spans)
    kept = [span for span, right in zip(spans, good, strict=True) if right]
    bad = [span for span, right in zip(spans, good, strict=True) if not right]
    holes = [(at - _HEADER.size, at + length + _CRC.size) for at, length in bad]
    doubt = offset if all(good[-1:]) else spans[-1][0] - _HEADER.size
    return Frames(data, kept, holes, offset, tail, len(bad), doubt)


def rescue_frames(data: bytes) -> Frames:
    """Every good frame of a whole file, also those behind damage; what had to be jumped over is counted."""
    result = read_frames(data)
    spans, holes, bad_frames, lost, settled = result.spans, result.holes, result.bad_frames, 0, True
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
        spans += result.spans
        holes += result.holes
        bad_frames += result.bad_frames
    return Frames(data, spans, holes, result.end, result.tail, bad_frames, result.doubt, lost, settled)


def find_frame(data: bytes, start: int) -> int | None:
    """The first offset from `start` on where a frame with both checksums right begins, or None."""
    for begin in range(start, len(data) - _OVERHEAD + 1, _WINDOW):
        found = _find_in_window(data, begin)
        if found is not None:
            return found
    return None


def _find_in_window(data: bytes, start: int) -> int | None:
    window = np.frombuffer(data, dtype=np.uint8)[start : start + _WINDOW + _OVERHEAD - 1]
    count = window.size - _OVERHEAD + 1
    crc = _crc32c_columns(window, np.arange(count), 8)
    stored = np.zeros(count, dtype=np.uint32)
    for byte in range(4):
        stored |= window[8 + byte : 8 + byte + count].astype(np.uint32) << np.uint32(8 * byte)
    for candidate in np.flatnonzero(_mask_array(crc) == stored):
        offset = start + int(candidate)
        length = int.from_bytes(data[offset : offset + 8], "little")
        at = offset + _HEADER.size
        if length <= len(data) - offset - _OVERHEAD and _check_spans(data, [(at, length)])[0]:
            return offset
    return None


def _check_spans(data: bytes, spans: list[tuple[int, int]]) -> list[bool]:
    """For each (offset, length) of some frame's data: does the CRC behind it match?"""
    good = [False] * len(spans)
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, (_, length) in enumerate(spans):
        by_length[length].append(index)
    raw = np.frombuffer(data, dtype=np.uint8)
    for length, members in by_length.items():
        if len(members) < _MANY:
            for index in members:
                at = spans[index][0]
                good[index] = mask(crc32c(data[at : at + length])) == _CRC.unpack_from(data, at + length)[0]
            continue
        offsets = np.array([spans[index][0] for index in members])
        stored = np.zeros(len(members), dtype=np.uint32)
        for byte in range(4):
            stored |= raw[offsets + (length + byte)].astype(np.uint32) << np.uint32(8 * byte)
        right = _mask_array(_crc32c_columns(raw, offsets, length)) == stored
        for index, is_right in zip(members, right.tolist(), strict=True):
            good[index] = is_right
    return good


def _crc32c_columns(raw: NDArray[np.uint8], offsets: NDArray[np.int64], length: int) -> NDArray[np.uint32]:
    """The CRC32C of the `length` bytes at each offset: one step for four byte positions, all offsets at once."""
    crc = np.full(offsets.size, 0xFFFFFFFF, dtype=np.uint32)
    if not length or not offsets.size:
        return crc ^ np.uint32(0xFFFFFFFF)
    rows = sliding_window_view(raw, length)[offsets]
    whole = length - length % 4
    words = np.ascontiguousarray(rows[:, :whole]).view("<u4")
    for column in range(whole // 4):
        parts = (crc ^ words[:, column]).view(np.uint8).reshape(-1, 4)
        crc = _NUMPY_TABLES[3][parts[:, 0]]
        for byte in (1, 2, 3):
            crc ^= _NUMPY_TABLES[3 - byte][parts[:, byte]]
    for column in range(whole, length):
        crc = _NUMPY_TABLES[0][(crc ^ rows[:, column]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def _mask_array(crc: NDArray[np.uint32]) -> NDArray[np.uint32]:
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    return rotated + np.uint32(_MASK_DELTA)  # wraps at 32 bits, as it should
