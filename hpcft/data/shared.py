"""Features that runs share: what one has tokenised, another of the same rows takes over."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcft.data.features import Features, files_in, stored_features
from hpcft.data.preparation import digest
from hpcft.disk import Lock, sync_folder
from hpcft.errors import UserError

PAUSE = 0.5
"""Seconds between two looks of one that waits."""
UNUSED_DAYS = 30
"""What no run has taken for so long, and none has any more, goes when the next is put there."""


@contextlib.contextmanager
def turn(shared: Path, source: str, poll: Callable[[], None]) -> Iterator[None]:
    """A block in which no other run makes features of this source, once one that does is done; `poll` is called
    meanwhile, and may raise to give up. Where no lock can be had, nobody waits, and each makes its own.
    """
    lock = Lock(shared / f".making-{source}")
    try:
        shared.mkdir(exist_ok=True, mode=0o700)
        mine = lock.take()
    except (UserError, OSError):
        yield
        return
    if not mine:
        print("hpcft: another run prepares the same rows; this one takes them over then", flush=True)
    while not mine:
        poll()
        mine = lock.take(patience=PAUSE)
    try:
        yield
    finally:
        lock.path.unlink(missing_ok=True)
        lock.drop()


def take(shared: Path, source: str, folder: Path) -> Features | None:
    """The features of this source, now in `folder` too, if a run has left them in `shared`, and they are sound.

    They have a life of their own there: the run needs nothing else when what is shared is gone.
    """
    found = stored_features(shared / source)
    if found is None:
        return None
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".taken-") as work:
        copy = Path(work) / "features"
        try:
            _copy(shared / source, copy)
        except FileNotFoundError:
            return None  # it was removed in this moment
        if digest(copy) != found.fingerprint:
            print(f"hpcft: passed over {shared / source}: its files have changed", flush=True)
            return None
        shutil.rmtree(folder, ignore_errors=True)
        copy.rename(folder)
    sync_folder(folder.parent)
    with contextlib.suppress(OSError):
        os.utime(shared / source)
    return Features(folder)


def leave(shared: Path, source: str, folder: Path) -> None:
    """Put features where runs to come find them. Two that do so at once leave those of one; a full disk, none."""
    try:
        shared.mkdir(exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=shared, prefix=".writing-") as work:
            copy = Path(work) / "features"
            _copy(folder, copy)
            with contextlib.suppress(FileExistsError, OSError):
                copy.rename(shared / source)
        forget(shared)
    except OSError as error:
        print(f"hpcft: features are not shared with other runs: {error}", flush=True)


def _copy(source: Path, target: Path) -> None:
    """The files of features in a second folder: the same bytes on disk where the file system has hard links."""
    target.mkdir(mode=0o700)
    for name in (*files_in(source), "complete.json"):
        try:
            os.link(source / name, target / name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source / name, target / name)
            sync_folder(target / name)
    sync_folder(target)


def forget(shared: Path) -> None:
    """Remove what nobody has used for long, and of which no run holds a link."""
    for folder in shared.iterdir():
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > UNUSED_DAYS * 86400
            if old and all(path.stat().st_nlink == 1 for path in folder.iterdir()):
                shutil.rmtree(folder)
