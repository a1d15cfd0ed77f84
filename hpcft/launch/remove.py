"""Removing a run for good: whole or not at all, and nothing beyond its own directory."""

from __future__ import annotations

import shutil
import sys
import uuid
from pathlib import Path

from hpcft.disk import locked, sync_folder
from hpcft.errors import Fault, UserError
from hpcft.launch import chain
from hpcft.launch.jobstatus import LIVE
from hpcft.launch.status import read_status
from hpcft.rundir import RunDir

HIDDEN = ".removed-"
"""Before the name of a run that is being removed: no verb sees it any more."""


def removable(run: RunDir) -> None:
    """Raise UserError if a job of this run may still live, or if its directory is not its own."""
    if run.path.is_symlink():
        what = f"is a link to {run.path.resolve()}, and links are not followed."
        raise UserError(Fault(run.name, what, "Remove the link, and what it leads to, by hand."))
    status = read_status([run])[0]
    if status.state == "half-submitted":
        raise UserError(Fault(run.name, "is half submitted.", f"`hpcft cancel {run.name}` undoes it."))
    if status.state in ("running", "queued"):
        raise UserError(Fault(run.name, f"is {status.state}.", f"End it first: `hpcft cancel {run.name}`."))
    if status.state == "unknown":
        raise UserError(Fault(run.name, "Slurm does not say whether it still runs.", "Try again later."))
    if any(job.state in LIVE for job in status.jobs) or run.lock.held():
        raise UserError(Fault(run.name, "has a job that is still ending.", "Try again in a minute."))


def remove(run: RunDir) -> None:
    """Delete a run's directory; links in it go, and what they lead to stays. Raises UserError as `removable` does.

    The directory is renamed first: a kill leaves no half of a run, and the next `hpcft rm` there clears the rest.
    """
    removable(run)
    hidden = run.path.with_name(f"{HIDDEN}{run.name}-{uuid.uuid4().hex[:8]}")
    with chain.alone(run):
        removable(run)  # a resume may have been faster
        with locked(run.lock.path) as still:
            if not still:
                raise UserError(Fault(run.name, "has a job that is still ending.", "Try again in a minute."))
            run.path.rename(hidden)
            sync_folder(hidden.parent)
    for folder in hidden.parent.glob(f"{HIDDEN}*"):
        _delete(folder)


def _delete(folder: Path) -> None:
    faults: list[Fault] = []

    def note(function: object, path: str, error: BaseException) -> None:
        del function
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        if not isinstance(error, FileNotFoundError):
            faults.append(Fault(path, f"could not be removed: {reason}.", "Remove it by hand."))

    if folder.is_symlink():
        return
    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=note)
    else:
        shutil.rmtree(folder, onerror=lambda function, path, info: note(function, path, info[1]))
    if faults:
        raise UserError(faults)
