"""Reading ahead: while python imports torch, a thread brings the files that come next from the disk into memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hpcft.rundir import RunDir

BLOCK = 8 << 20
SHARE = 0.25
"""Of the memory that is free, at most: what is read ahead must push nothing out that is needed sooner."""


def read_ahead(run: RunDir) -> threading.Thread | None:
    """The thread that reads, on the first process of each node; None where there is nothing to read, or no room.

    It keeps nothing: the kernel does, for whoever opens the files next.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    files = files_ahead(run)
    if not files or sum(path.stat().st_size for path in files) > SHARE * _free_memory():
        return None
    thread = threading.Thread(target=_read, args=(files,), daemon=True)
    thread.start()
    return thread


def files_ahead(run: RunDir) -> list[Path]:
    """Weights of a model in a folder, and the newest checkpoint, in the order in which they are wanted."""
    folder = Path(run.recipe.model.path)
    files = (
        sorted(folder.glob("*.safetensors")) if folder.is_absolute() and run.recipe.model.weights != "random" else []
    )
    if steps := run.saved_steps():
        files += sorted((run.checkpoints / f"step-{steps[-1]:08d}").glob("*.safetensors"))
    return files


def _read(files: list[Path]) -> None:
    block = bytearray(BLOCK)
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                while file.readinto(block):
                    pass
        except OSError:  # whoever needs it will say so
            return


def _free_memory() -> int:
    """Bytes that the kernel could give out; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
