"""A run is a directory: where each fact of it lies."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.disk import Lock, read_json
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe

JOB_NAME = re.compile(r"(\d{3,})(?:\.(\d+))?")
CANCELLED = b"cancelled\n"
"""In a run's STOP file: not paused by `hpcft stop`, but ended by `hpcft cancel`."""


@dataclass(frozen=True)
class JobDir:
    """One job of a run, or a later attempt of it when Slurm requeued the same id."""

    path: Path
    number: int
    attempt: int = 1

    @property
    def submitted(self) -> dict[str, Any] | None:
        """{slurm_id, cluster, time, walltime, ...}; it belongs to the job, whatever the attempt."""
        return read_json(self.path.parent / f"{self.number:03d}" / "submitted.json")

    @property
    def started(self) -> dict[str, Any] | None:
        """{time, host, pid, end, ...}, written by the supervisor in its first second."""
        return read_json(self.path / "started.json")

    @property
    def ended(self) -> dict[str, Any] | None:
        """{ending, time, first_step, last_step, seconds, ...}, written once, whole."""
        return read_json(self.path / "ended.json")

    @property
    def heartbeat(self) -> dict[str, Any] | None:
        """{time, phase, step, loss, ...}, renewed while the job runs."""
        return read_json(self.path / "heartbeat.json")

    @property
    def resumed(self) -> dict[str, Any] | None:
        """{step, exactness, ...}: where training went on, written by the worker before its first step."""
        return read_json(self.path / "resumed.json")

    @property
    def slurm_id(self) -> str | None:
        """The scheduler's id, None while the submission is half-done."""
        record = self.submitted
        return record["slurm_id"] if record else None

    @property
    def released(self) -> Path:
        """Stands once the job was let go in Slurm: if it is held after that, somebody's hand did it."""
        return self.path / "released"

    @property
    def label(self) -> str:
        """`job003-4711`, or `job003-4711.2` for the second attempt: its name in TensorBoard."""
        base = f"job{self.number:03d}-{self.slurm_id or 'none'}"
        return base if self.attempt == 1 else f"{base}.{self.attempt}"

    @property
    def curve(self) -> Path:
        """Folder of the event files that this job writes."""
        return self.path / "curve"

    @property
    def log(self) -> Path:
        """What the workers print."""
        return self.path / "log.txt"


@dataclass(frozen=True)
class RunDir:
    """The paths and facts of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The recipe's name, with a number behind it if that was taken."""
        return self.path.name

    @property
    def code(self) -> Path:
        """hpcft as it was when the run was submitted; jobs import it from here."""
        return self.path / "code"

    @property
    def jobs_folder(self) -> Path:
        return self.path / "jobs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def features(self) -> Path:
        """Tokenised rows, one folder a split; of a run with phases, in one folder for each of their data."""
        return self.path / "features"

    @property
    def splits(self) -> Path:
        """Which rows of their sources the runs of this folder have drawn, by fingerprint; shared by all of them."""
        return self.path.parent / ".splits"

    @property
    def rows(self) -> dict[str, Any]:
        """By split: {source, of, removed, rows, fingerprint}, of the rows that were chosen from a source."""
        return read_json(self.path / "rows.json") or {}

    @property
    def phases(self) -> list[dict[str, Any]]:
        """{name, begins, ends, step_tokens, other_measure, over} of each phase; none before the first job has counted
        the rows, or without phases in the recipe."""
        return list((read_json(self.path / "phases.json") or {"phases": []})["phases"])

    @property
    def trackers(self) -> Path:
        """What other trackers have of the curve, a file each, and the stores of those that keep theirs here."""
        return self.path / "trackers"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def final_model(self) -> Path:
        """What is left to use: a folder for `AutoModelForCausalLM.from_pretrained`."""
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        """The weights of the lowest validation loss so far, likewise; there with train.keep_best."""
        return self.path / "best"

    @property
    def lock(self) -> Lock:
        """Held by the job that may write."""
        return Lock(self.path / "lock")

    @property
    def reserve(self) -> Path:
        """Some bytes that a running job holds, to have room for its last words on a disk that is full."""
        return self.path / "reserve"

    @property
    def stop_file(self) -> Path:
        """Stands while the user wants the run to pause."""
        return self.path / "STOP"

    @property
    def waiting_file(self) -> Path:
        """Stands while a run of a matrix has no job: the queue, or this machine, takes only some of them at once."""
        return self.path / "waiting"

    @property
    def waits(self) -> bool:
        """Whether it waits for another run of its matrix to end, with no job of its own."""
        return self.waiting_file.exists() and not (self.path / "queued.json").exists()

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe, as every job reads it."""
        return Recipe.model_validate_json((self.path / "recipe.json").read_bytes())

    @property
    def submission(self) -> dict[str, Any] | None:
        """{recipe, cluster, env, time}: what was submitted, to what kind of machine."""
        return read_json(self.path / "submission.json")

    @property
    def finished(self) -> dict[str, Any] | None:
        return read_json(self.path / "finished.json")

    @property
    def halted(self) -> dict[str, Any] | None:
        """{reason, fix, job, time}: why no further job may start until `hpcft resume`."""
        return read_json(self.path / "halted.json")

    @property
    def resumed_after(self) -> int:
        """The last job that had begun when the user called `hpcft resume`; crashes up to it are forgiven."""
        return int((read_json(self.path / "resume.json") or {"after": 0})["after"])

    @property
    def submitted_before(self) -> int:
        """The last job that had a number when the user called `hpcft resume`: resources.jobs counts from there."""
        return int((read_json(self.path / "resume.json") or {"submitted": 0})["submitted"])

    def job(self, number: int, attempt: int = 1) -> JobDir:
        """The place of one job; it need not exist yet."""
        name = f"{number:03d}" if attempt == 1 else f"{number:03d}.{attempt}"
        return JobDir(self.jobs_folder / name, number, attempt)

    def jobs(self) -> list[JobDir]:
        """Every job and attempt that has a place, in order."""
        found = []
        for path in self.jobs_folder.iterdir() if self.jobs_folder.is_dir() else ():
            if match := JOB_NAME.fullmatch(path.name):
                found.append(JobDir(path, int(match[1]), int(match[2] or 1)))
        return sorted(found, key=lambda job: (job.number, job.attempt))

    def saved_steps(self) -> list[int]:
        """Steps of the checkpoints that have a manifest, ascending; whether they are sound, loading tells."""
        names = self.checkpoints.glob("step-*/manifest.json") if self.checkpoints.is_dir() else ()
        return sorted(int(path.parent.name.removeprefix("step-")) for path in names)

    def total_steps(self) -> int | None:
        """Steps of the whole run; None until the first job has counted the rows of a run given in epochs."""
        if steps := self.recipe.steps:
            return steps
        for job in reversed(self.jobs()):
            if record := job.resumed:
                return int(record["total_steps"])
        return None


def find_runs(root: Path) -> list[RunDir]:
    """Every run below this folder, oldest name first; half-made ones (a leading dot) are left out."""
    if not root.is_dir():
        return []
    paths = (path for path in root.iterdir() if not path.name.startswith(".") and (path / "recipe.json").is_file())
    return [RunDir(path) for path in sorted(paths)]


def find_run(root: Path, prefix: str) -> RunDir:
    """The run of this name, else the only one whose name begins so. Raises UserError for none and for several."""
    runs = find_runs(root)
    exact = [run for run in runs if run.name == prefix]
    fitting = exact or [run for run in runs if run.name.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(run.name for run in fitting)
        raise UserError(Fault(prefix, f"fits {len(fitting)} runs: {names}.", "Write more of the name."))
    names = ", ".join(run.name for run in runs[-10:]) or "none"
    raise UserError(Fault(prefix, f"no run of this name in {root}.", f"There: {names}."))


def make_root(root: Path) -> None:
    """Make the folder of all runs. Raises UserError if nothing can be written there."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = "Name another folder with --runs or HPCFT_RUNS."
        raise UserError(Fault(str(root), f"no run directory can be made here: {reason}.", fix)) from None
