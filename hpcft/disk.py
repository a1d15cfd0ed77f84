"""Facts on disk: written whole, read back, and locked against a second writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put a file in place so that a reader, or a crash, sees the old one or the new one and nothing between.

    `durable=False` leaves out the fsync, for what is written every second and worth nothing after a crash.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder, or a file's bytes, outlive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_durable(path: Path) -> None:
    """Make a file that was written without fsync outlive a crash of the machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_files(folder: Path) -> None:
    """Make every file in this folder outlive a crash of the machine, before something says that they are there."""
    for path in folder.iterdir():
        if path.is_file():
            sync_folder(path)
    sync_folder(folder)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write a fact whole, as JSON that a person can read."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The fact in this file; None where it was never written."""
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return value


class Lock:
    """One holder at a time, also across machines where the file system keeps flock; a dead holder keeps nothing.

    flock belongs to the open file, so the kernel drops it when the last process that has it open is gone. It is
    not inherited by children, since Python opens files close-on-exec.
    """

    def __init__(self, path: Path, *, inherited: bool = False) -> None:
        """`inherited`: children started with close_fds=False hold it too, so that it is free when they are gone."""
        self.path = path
        self._inherited = inherited
        self._handle: int | None = None

    def take(self, patience: float = 0.0) -> bool:
        """Whether the lock is ours now, after at most `patience` seconds."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(handle)
                    what = f"cannot be locked: {(error.strerror or str(error)).lower()}."
                    fix = "Name a folder with --runs or HPCFT_RUNS on a file system that keeps flock."
                    raise UserError(Fault(str(self.path.parent), what, fix)) from None
                if time.monotonic() >= deadline:
                    os.close(handle)
                    return False
                time.sleep(0.1)
            else:
                os.set_inheritable(handle, self._inherited)
                self._handle = handle
                return True

    def drop(self) -> None:
        """Let the next one in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def held(self) -> bool:
        """Whether somebody, we included, holds it."""
        if self._handle is not None:
            return True
        if not self.path.exists():
            return False
        if self.take():
            self.drop()
            return False
        return True


@contextlib.contextmanager
def locked(path: Path, patience: float = 0.0, *, inherited: bool = False) -> Iterator[bool]:
    """Whether the lock could be taken; it is dropped at the end of the block."""
    lock = Lock(path, inherited=inherited)
    taken = lock.take(patience)
    try:
        yield taken
    finally:
        lock.drop()
