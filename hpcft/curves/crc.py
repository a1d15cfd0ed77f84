"""CRC32C (Castagnoli), masked as the frames of event files carry it: of one stretch of bytes, or of many at once.

The register of a checksum is linear in the bytes. So stretches of many lengths stand right-aligned behind zeros, which
leave a register that begins at 0 as it is, and go through one table together; what the true beginning, all ones, adds
depends on a length alone. A long stretch is cut into lanes that are put together in pairs.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MASK_DELTA = 0xA282EAD8
_LANE = 96
"""Bytes of a lane; most scalar events are shorter."""
_BLOCK = 1 << 19
"""Bytes that go through the tables together: they fit a processor's cache."""
_SHORT = 2048
"""Bytes. Up to here the plain loop is quicker for a single stretch."""


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli's polynomial, bits reversed
        table.append(crc)
    return table


_TABLE = _make_table()
_BYTES = np.array(_TABLE, dtype=np.uint32)


def _zeros_behind(registers: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """The registers after `count` zero bytes more."""
    for _ in range(count):
        registers = _BYTES[registers & np.uint32(0xFF)] ^ (registers >> np.uint32(8))
    return registers


_LOW = _zeros_behind(np.arange(1 << 16, dtype=np.uint32), 4)
_HIGH = _zeros_behind(np.arange(1 << 16, dtype=np.uint32) << np.uint32(16), 4)
"""What four bytes make of a register: by its lower half, and by its upper one."""


def _make_begun() -> NDArray[np.uint32]:
    begun = [np.full(1, 0xFFFFFFFF, dtype=np.uint32)]
    for _ in range(_LANE):
        begun.append(_zeros_behind(begun[-1], 1))
    return np.concatenate(begun)


_BEGUN = _make_begun()
"""All ones after 0 to `_LANE` zero bytes."""


def masked_crc32c(data: bytes) -> int:
    """The masked CRC32C of `data`."""
    if len(data) > _SHORT:
        whole = np.array([len(data)], dtype=np.int64)
        return int(masked_crc32c_many(np.frombuffer(data, dtype=np.uint8), np.zeros(1, dtype=np.int64), whole)[0])
    return mask(crc32c(data))


def crc32c(data: bytes) -> int:
    """The CRC32C of `data`, e.g. 0xE3069283 for b"123456789"; byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """`crc` as event files store it; rotated, as the CRC of data that holds CRCs would be weak."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c_many(
    raw: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """The masked CRC32C of each stretch of `raw`."""
    found = np.empty(len(offsets), dtype=np.uint32)
    doublings = np.ceil(np.log2(np.maximum(lengths, _LANE) / _LANE)).astype(np.int64)
    for doubling in np.flatnonzero(np.bincount(doublings)).tolist():
        chosen = np.flatnonzero(doublings == doubling)
        longest = int(lengths[chosen].max())
        width = _LANE << doubling if doubling else longest + -longest % 4
        each = max(1, _BLOCK // max(1, width))
        for first in range(0, len(chosen), each):
            block = chosen[first : first + each]
            rows = _right_aligned(raw, offsets[block], lengths[block], width)
            found[block] = _put_together(rows, doubling) ^ _begun(lengths[block])
    crc = ~found
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    return np.asarray(rotated + np.uint32(_MASK_DELTA))  # wraps at 32 bits, as it should


def windows(raw: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """The `length` bytes from each offset on, as rows over the same memory; where `raw` is as long."""
    return np.ndarray((raw.size - length + 1, length), np.uint8, raw, strides=(1, 1))


def _right_aligned(
    raw: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64], width: int
) -> NDArray[np.uint8]:
    """Each stretch behind zeros, `width` bytes in all."""
    starts = offsets + lengths - width
    if raw.size < width or starts.min() < 0:
        rows = np.zeros((len(offsets), width), dtype=np.uint8)
        far = starts >= 0
        if far.any():
            rows[far] = _right_aligned(raw, offsets[far], lengths[far], width)
        for row in np.flatnonzero(~far).tolist():
            at, length = int(offsets[row]), int(lengths[row])
            rows[row, width - length :] = raw[at : at + length]
        return rows
    rows = windows(raw, width)[starts]
    if width <= _LANE and (lengths < width).any():
        rows *= np.arange(width) >= (width - lengths)[:, None]
    elif width > _LANE:  # a mask of eight bytes for each byte of a large event would be felt
        for row, extra in enumerate((width - lengths).tolist()):
            rows[row, :extra] = 0
    return np.asarray(rows)


def _put_together(rows: NDArray[np.uint8], doublings: int) -> NDArray[np.uint32]:
    """The register behind each row, begun at 0; a row is as many lanes as 2 to the power of `doublings`."""
    words = rows.view("<u4").reshape(len(rows) << doublings, -1)
    crc = np.zeros(len(words), dtype=np.uint32)
    for column in range(words.shape[1]):
        halves = (crc ^ words[:, column]).view(np.uint16)
        crc = _LOW[halves[::2]] ^ _HIGH[halves[1::2]]
    for doubling in range(doublings):
        crc = _behind(crc[::2], doubling) ^ crc[1::2]
    return crc


def _behind(registers: NDArray[np.uint32], doublings: int) -> NDArray[np.uint32]:
    """The registers after as many lanes of zeros as 2 to the power of `doublings`."""
    tables = _lane_tables(doublings)
    after = tables[0][registers & np.uint32(0xFF)]
    for byte in (1, 2, 3):
        after ^= tables[byte][(registers >> np.uint32(8 * byte)) & np.uint32(0xFF)]
    return np.asarray(after)


@lru_cache(maxsize=64)
def _lane_tables(doublings: int) -> list[NDArray[np.uint32]]:
    registers = [np.arange(256, dtype=np.uint32) << np.uint32(8 * byte) for byte in range(4)]
    if doublings == 0:
        return [_zeros_behind(of_byte, _LANE) for of_byte in registers]
    return [_behind(_behind(of_byte, doublings - 1), doublings - 1) for of_byte in registers]


def _begun(lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """All ones after as many zero bytes."""
    lanes, registers = lengths // _LANE, _BEGUN[lengths % _LANE]
    for doubling in range(int(lanes.max(initial=0)).bit_length()):
        has = (lanes >> doubling) & 1 == 1
        registers[has] = _behind(registers[has], doubling)
    return registers
