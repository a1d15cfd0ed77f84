"""What a look into a run borrows of it: its features and checkpoints, seen from a folder of one's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hpcft.rundir import RunDir


def borrow(run: RunDir, own: RunDir, only: int | None = None) -> list[int]:
    """Steps of the checkpoints of a run, or of the one that is meant, which are now in our folder too, as are its
    features."""
    own.features.mkdir()
    own.checkpoints.mkdir()
    for complete in run.features.rglob("complete.json"):
        place = own.features / complete.parent.relative_to(run.features)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(complete.parent)
    for name in ("model.json", "phases.json"):
        if (run.path / name).exists():
            shutil.copy(run.path / name, own.path)
    for step in run.saved_steps():
        if only in (None, step):
            folder = f"step-{step:08d}"
            _link(run.checkpoints / folder, own.checkpoints / folder)
    return own.saved_steps()


def _link(source: Path, target: Path) -> None:
    """Make a checkpoint appear in a second place, where it stays if the run prunes it meanwhile."""
    target.mkdir()
    try:
        for path in sorted(source.iterdir()):
            os.link(path, target / path.name)
    except FileNotFoundError:
        shutil.rmtree(target)  # pruned in this moment: there is a newer one
    except OSError:  # some file systems have no such links between folders, and the run may be somebody else's
        shutil.rmtree(target)
        target.symlink_to(source)
