"""An event file that somebody writes, read bit by bit: each byte once, unless it is damaged or has changed.

What is found depends on the bytes in the file alone, not on when it was looked at, as long as sound bytes stay what
they are: what has been passed over as damage is looked at again, since on a network file system zeros may turn into the
bytes that were written.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcft.curves.frames import Frames, Tail, read_frames, rescue_frames

CHUNK = 1 << 23
"""Bytes that are read at a time."""
_BEFORE = 64
"""Bytes before the place where we read on that must be as they were: else it is another file."""
_RECENT = 5.0
"""Seconds. A file that was changed so lately may change again without a new time of change."""


@dataclass(frozen=True)
class Hole:
    """A stretch that was passed over."""

    begin: int
    end: int
    crc: int


class FileTail:
    """An event file, and how far it has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._forget()

    def _forget(self) -> None:
        self._inode = -1
        self._offset = 0
        self._before = b""
        self._holes: list[Hole] = []
        self._clean, self._settled = True, True
        self.bad_frames = 0
        """Frames whose checksum is wrong, as `Damage` counts them."""
        self.lost_bytes = 0
        """Bytes of no frame."""
        self._at_end = (0, 0)
        self._at = 0

    def offset_of(self, place: int) -> int:
        """Where in the file a place in the data of the newest frames is."""
        return self._at + place

    def changed(self) -> bool:
        """Whether there may be something to read. Raises OSError."""
        return self._signature(self._path.stat()) != self._seen

    def read(self) -> Iterator[Frames | None]:
        """What is new, a chunk at a time; None comes first where all that was read before is void. Raises OSError."""
        with self._path.open("rb") as file:  # opened each time: on NFS that is when others' writes are seen
            status = os.fstat(file.fileno())
            self._seen = None
            if not self._goes_on(file, status):
                self._forget()
                yield None
            self._inode = status.st_ino
            self._uncount()
            file.seek(self._offset)
            yield from self._chunks(file)
            self._seen = self._signature(status)

    def _signature(self, status: os.stat_result) -> object:
        """Equal as long as there is nothing to look at."""
        if self._clean:
            return (status.st_ino, status.st_size)
        if time.time() - status.st_mtime < _RECENT:
            return object()
        return (status.st_ino, status.st_size, status.st_mtime_ns)

    def _goes_on(self, file: IO[bytes], status: os.stat_result) -> bool:
        if status.st_ino != self._inode or status.st_size < self._offset or not self._settled:
            return False
        file.seek(self._offset - len(self._before))
        if file.read(len(self._before)) != self._before:
            return False
        for hole in self._holes:
            file.seek(hole.begin)
            if zlib.crc32(file.read(hole.end - hole.begin)) != hole.crc:
                return False
        return True

    def _chunks(self, file: IO[bytes]) -> Iterator[Frames]:
        carried = b""
        while True:
            block = file.read(CHUNK)
            data, at_end = carried + block, len(block) < CHUNK
            frames = read_frames(data)
            whole = frames.doubt == frames.end and (
                frames.tail is Tail.WHOLE or (frames.tail is Tail.SHORT and not at_end)
            )
            if not whole:
                data += file.read()  # damage, or a frame that is being written: all that is left, at once
                frames = rescue_frames(data)
            self._at = self._offset
            self._take(frames, at_end=not whole)
            yield frames
            if at_end or not whole:
                return
            carried = data[frames.end :]

    def _take(self, frames: Frames, *, at_end: bool) -> None:
        for begin, end in frames.holes:
            if begin < frames.doubt:
                crc = zlib.crc32(frames.data[begin:end])
                self._holes.append(Hole(self._offset + begin, self._offset + end, crc))
        self.bad_frames += frames.bad_frames
        self.lost_bytes += frames.lost_bytes
        if at_end:
            # What stands behind the place where we read on will be counted again.
            left = len(frames.data) - frames.end if frames.tail is not Tail.WHOLE else 0
            self._at_end = (int(frames.doubt < frames.end), left)
        self._settled = frames.settled
        self._clean = not self._holes and frames.settled and frames.tail is not Tail.CORRUPT
        self._clean = self._clean and frames.doubt == frames.end
        self._before = (self._before + frames.data[max(0, frames.doubt - _BEFORE) : frames.doubt])[-_BEFORE:]
        self._offset += frames.doubt

    def _uncount(self) -> None:
        bad, lost = self._at_end
        self.bad_frames -= bad
        self.lost_bytes -= lost
        self._at_end = (0, 0)
