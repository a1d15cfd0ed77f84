"""What a run takes on disk."""

from __future__ import annotations

import os
from pathlib import Path

from hpcft.rundir import RunDir


def sizes(run: RunDir) -> dict[str, int]:
    """Bytes on disk of each part of a run, by the name at its top; links count as links."""
    found: dict[str, int] = {}
    for path in sorted(run.path.iterdir()):
        found[path.name] = sum(entry.lstat().st_blocks * 512 for entry in _walk(path))
    return found


def _walk(path: Path) -> list[Path]:
    found = [path]
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            found += [Path(folder) / name for name in (*folders, *files)]
    return found
