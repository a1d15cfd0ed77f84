"""Scratch: a folder on this machine's own disk, for as long as the process lives that made it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpcft.disk import Lock
from hpcft.errors import UserError

PREFIX = "hpcft-scratch-"
OWNER = "owner.lock"
"""Held by the process whose folder it is. Not a process id: two containers on a node count theirs apart."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, which is removed at the end of the block; what killed processes of this user left goes first."""
    remove_left()
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    owner = Lock(made / OWNER)
    with contextlib.suppress(UserError):  # a disk that keeps no flock: nobody else can take it either
        owner.take()
    folder = made.rename(made.with_name(made.name.removeprefix(".")))  # seen by others only once it is locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        owner.drop()


def remove_left() -> None:
    """Remove the folders of this user that nobody holds any more: who is killed cannot do it. Raises nothing."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            with contextlib.suppress(OSError, UserError):
                ours = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()
                if entry.name.startswith(PREFIX) and ours and os.path.exists(f"{entry.path}/{OWNER}"):  # noqa: PTH110
                    _remove_if_free(Path(entry.path))


def _remove_if_free(folder: Path) -> None:
    owner = Lock(folder / OWNER)
    if owner.take():
        shutil.rmtree(folder, ignore_errors=True)
        owner.drop()
