"""The training loop's event file: buffered, one open file, and never an exception into the loop.

(torch's SummaryWriter opens, appends to and closes the file for every event, and a full disk kills the
training.)
"""

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hpcft.curves.events import file_name, scalar_event, version_event
from hpcft.curves.frames import encode_frame

SECONDS_BETWEEN_WRITES = 5.0
BYTES_PER_WRITE = 64 * 1024
BYTES_KEPT = 1024 * 1024
"""While nothing can be written, the newest events up to this size wait in memory; older ones are lost."""

_FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.hpcft")


class CurveWriter:
    """Writes scalars to event files in a directory of its own, for one process and one thread.

    Points go to the disk at the first call that comes 5 s after the last write, with 64 KiB waiting, or on
    `flush`. What the file system refuses (full disk, quota, stale handle) waits for the next try, in a new
    file: behind a half-written frame no reader would find anything. No method raises OSError; see `lost`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._path = directory
        self._descriptor: int | None = None
        self._written_whole = 0
        self._tried = time.monotonic()
        self._failing = False
        self.lost = 0
        """Events that could not be written and are given up."""

    def scalar(self, tag: str, value: float, step: int, wall_time: float | None = None) -> None:
        """Add a point to the curve `tag`; `wall_time` in seconds since 1970, now when None."""
        now = time.time() if wall_time is None else wall_time
        frame = encode_frame(scalar_event(tag, value, step, now))
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        full = self._waiting_bytes >= BYTES_PER_WRITE and not self._failing
        if full or time.monotonic() - self._tried >= SECONDS_BETWEEN_WRITES:
            self.flush()
        while self._waiting_bytes > BYTES_KEPT:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.lost += 1

    def flush(self) -> None:
        """Hand all points to the operating system."""
        self._tried = time.monotonic()
        try:
            if self._waiting:
                self._write_waiting()
            self._failing = False
        except OSError:
            self._failing = True
            self._leave_file()

    def durable(self) -> Callable[[], None]:
        """Flush, and give what waits until all points so far are on the disk; another thread may call it, once."""
        self.flush()
        handle = None
        if self._descriptor is not None:
            try:
                handle = os.dup(self._descriptor)
            except OSError:  # this process has as many files open as it may: then now
                with contextlib.suppress(OSError):
                    os.fsync(self._descriptor)

        def wait() -> None:
            if handle is not None:
                with contextlib.suppress(OSError):
                    os.fsync(handle)
                os.close(handle)

        return wait

    def close(self) -> None:
        """Write what waits and close the file; what cannot be written now is lost. Twice is once."""
        self.flush()
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._leave_file()

    def _write_waiting(self) -> None:
        if self._descriptor is None:
            self._descriptor = self._open_next()
            _write_all(self._descriptor, encode_frame(version_event(time.time())))
        block = b"".join(self._waiting)
        try:
            written = _write_all(self._descriptor, block)
        except _Torn as torn:
            self._forget(torn.written)
            raise
        self._forget(written)

    def _forget(self, written: int) -> None:
        """Drop the frames that lie whole within the first `written` bytes of what waits."""
        while self._waiting and written >= len(self._waiting[0]):
            frame = self._waiting.popleft()
            written -= len(frame)
            self._waiting_bytes -= len(frame)
            self._written_whole += 1

    def _open_next(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in self._directory.iterdir()]
        taken = [int(found[1]) for name in names if (found := _FILE_NAME.fullmatch(name))]
        path = self._directory / file_name(max(taken, default=0) + 1)
        self._path, self._written_whole = path, 0
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _leave_file(self) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None
        if self._written_whole == 0:
            # A disk that stays full for hours must not fill the directory with empty files.
            with contextlib.suppress(OSError):
                self._path.unlink()


class _Torn(OSError):
    """A write that stopped half-way, after `written` bytes."""

    def __init__(self, written: int, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.written = written


def _write_all(descriptor: int, data: bytes) -> int:
    view, written = memoryview(data), 0
    while written < len(data):
        try:
            written += os.write(descriptor, view[written:])
        except OSError as error:
            raise _Torn(written, error) from error
    return written
