"""Files in blocks: written and hashed, or read and checked, by several threads at once.

A block has a hash of its own, so that no file is ever read a second time to be hashed, and no single core's hashing
(0.4 GB/s where it lacks the SHA extensions, as those beside V100s do) is what a save or a resume waits for.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

BLOCK = 32 << 20
"""Bytes."""
CHUNK = 1 << 20
"""Bytes that are written and hashed while they are in a core's cache."""
BEGIN_TO_WRITE = 2
"""SYNC_FILE_RANGE_WRITE."""
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system says that cannot reserve."""
_libc = ctypes.CDLL(None, use_errno=True)
_mine = threading.local()

Pieces = Sequence[Tensor]
"""A file's bytes, one behind the other: flat uint8 tensors, on any device."""
Sink = Callable[[int, memoryview], None]
"""Takes bytes of a file, and the place of the first; called from several threads, at different places."""


class Damaged(Exception):
    """A file is not what was written, in words."""


def threads() -> int:
    """How many work at once: one hashes while another waits for the disk, and more where there are cores to spare."""
    return min(8, max(2, len(os.sched_getaffinity(0)) // 2))


def size_of(pieces: Pieces) -> int:
    """Bytes of a file."""
    return sum(piece.numel() for piece in pieces)


def write_files(folder: Path, files: Mapping[str, Pieces]) -> dict[str, dict[str, Any]]:
    """{name: {size, block, sha256}} of new files that are now on disk, not only in memory; a hash a block.

    Room for all of them is taken before the first byte is written. Raises OSError.
    """
    handles: dict[str, int] = {}
    try:
        for name, pieces in files.items():
            handles[name] = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _reserve(handles[name], size_of(pieces))
        facts: dict[str, dict[str, Any]] = {}
        with ThreadPoolExecutor(threads(), "hpcft-write") as pool:
            hashes = {name: pool.map(_writer(handles[name], pieces), _starts(pieces)) for name, pieces in files.items()}
            for name, pieces in files.items():
                facts[name] = {"size": size_of(pieces), "block": BLOCK, "sha256": list(hashes[name])}
        for handle in handles.values():
            os.fsync(handle)
        return facts
    finally:
        for handle in handles.values():
            os.close(handle)


def _starts(pieces: Pieces) -> range:
    return range(0, size_of(pieces), BLOCK)


def _reserve(handle: int, size: int) -> None:
    """Take room for a file. Not os.posix_fallocate: where a file system cannot, glibc writes a byte to each page."""
    if size and _libc.fallocate(handle, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code not in UNSUPPORTED:
            raise OSError(code, os.strerror(code))


def _writer(handle: int, pieces: Pieces) -> Callable[[int], str]:
    """What writes the block that begins at a place, and gives its hash."""
    ends = list(itertools.accumulate(piece.numel() for piece in pieces))

    def write(first: int) -> str:
        digest, place = hashlib.sha256(), first
        for view in _views(pieces, ends, first, min(first + BLOCK, ends[-1])):
            while view:
                written = os.pwrite(handle, view[:CHUNK], place)
                digest.update(view[:written])
                view, place = view[written:], place + written
        # Linux begins to write the block out at this word, and not only when fsync asks for the whole file. Where a
        # file system does not know it, fsync does all.
        _libc.sync_file_range(handle, ctypes.c_int64(first), ctypes.c_int64(place - first), BEGIN_TO_WRITE)
        return digest.hexdigest()

    return write


def _views(pieces: Pieces, ends: Sequence[int], first: int, last: int) -> Iterator[memoryview]:
    """The bytes from `first` up to `last`, as they lie in the pieces; a piece on a GPU is fetched."""
    number = bisect_right(ends, first)
    while first < last:
        begin = ends[number] - pieces[number].numel()
        stop = min(last, ends[number])
        if stop > first:
            yield pieces[number][first - begin : stop - begin].cpu().numpy().data
        first, number = stop, number + 1


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], sinks: Mapping[str, Sink] | None = None) -> None:
    """Read files once, and hold each block against its hash; what is sound goes to the file's sink, if it has one.

    Raises Damaged for the first that is not what was written, OSError for one that cannot be read.
    """
    handles: list[int] = []
    try:
        with ThreadPoolExecutor(threads(), "hpcft-read") as pool:
            waiting = []
            for name, facts in files.items():
                handles.append(handle := os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC))
                if (size := os.fstat(handle).st_size) != facts["size"]:
                    raise Damaged(f"{name} has {size} bytes and should have {facts['size']}")
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                check = _checker(name, handle, facts, (sinks or {}).get(name))
                waiting.append(pool.map(check, range(len(facts["sha256"]))))
            for blocks in waiting:
                for _ in blocks:
                    pass
    finally:
        for handle in handles:
            os.close(handle)


def _checker(name: str, handle: int, facts: Mapping[str, Any], sink: Sink | None) -> Callable[[int], None]:
    """What reads a file's block of this number and checks it."""
    size, block, hashes = int(facts["size"]), int(facts["block"]), facts["sha256"]
    if len(hashes) != -(-size // block):
        raise Damaged(f"{name} has {len(hashes)} hashes for {size} bytes")

    def check(number: int) -> None:
        first = number * block
        length = min(block, size - first)
        if len(getattr(_mine, "buffer", b"")) < length:
            _mine.buffer = bytearray(length)
        view = memoryview(_mine.buffer)[:length]
        read = 0
        while read < length:
            if not (more := os.preadv(handle, [view[read:]], first + read)):
                raise Damaged(f"{name} ends at byte {first + read} of {size}")
            read += more
        if hashlib.sha256(view).hexdigest() != hashes[number]:
            raise Damaged(f"{name} is not what was written")
        if sink:
            sink(first, view)

    return check
