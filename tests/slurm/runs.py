"""Runs on the private Slurm, as a user has them: a recipe on disk, the `hpcft` command, and what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcft.rundir import JobDir, RunDir, find_runs
from tests.parts import make_tiny_gpt2, write_rows
from tests.slurm.lab import Lab
from tests.slurm.processes import eventually, job_processes

HPCFT = Path(sys.executable).with_name("hpcft")
TEMPLATE = "### Question\n{{question}}\n\n### Answer\n{{answer}}\n"


@dataclass(frozen=True)
class Site:
    """A folder with a recipe, a cluster file for the private Slurm, and a place for runs."""

    folder: Path
    lab: Lab

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run(self, name: str = "tiny") -> RunDir:
        """The run of this name."""
        return RunDir(self.runs / name)

    def environment(self, **variables: str) -> dict[str, str]:
        """What `hpcft` finds in its environment."""
        offline = {"HPCFT_RUNS": str(self.runs), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return {**self.lab.environment, **offline, **variables}

    def hpcft(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """What `hpcft ...` printed, on stdout or else on stderr; its exit code has to be this one."""
        done = subprocess.run(
            [HPCFT, *arguments], capture_output=True, text=True, env=self.environment(**variables), timeout=120
        )
        assert done.returncode == code, f"hpcft {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def submit(self, *overrides: str, **variables: str) -> RunDir:
        """A new run of the recipe, with `section.key=value` overrides."""
        words = self.hpcft("submit", str(self.recipe), *(f"--set={text}" for text in overrides), **variables)
        return RunDir(self.runs / words.split()[1].rstrip(":"))

    def status(self, run: RunDir) -> dict[str, Any]:
        """The run's entry in `hpcft status --json`."""
        answer: dict[str, Any] = json.loads(self.hpcft("status", run.name, "--json"))
        return answer["runs"][0]  # type: ignore[no-any-return]

    def wait(self, what: str, true: Callable[[], bool], seconds: float = 60.0) -> None:
        """Until it is true. Fails, with what the runs here say of themselves, when that takes too long."""
        if not eventually(true, seconds=seconds):
            raise AssertionError(f"waited {seconds:g} s for {what}\n{self.describe()}")

    def describe(self) -> str:
        """Every run here with its jobs, the ends of their logs, and the queue."""
        lines = [self.lab.run("squeue", "--format=%i %j %T %r %E")]
        for run in find_runs(self.runs):
            lines.append(f"{run.name}: halted {run.halted}, finished {run.finished}")
            for job in run.jobs():
                lines.append(f"  {job.label}: {job.ended or job.heartbeat or job.started or job.submitted}")
                for log in (job.log, *job.path.glob("*_log.out")):
                    if log.exists():
                        lines += [f"    | {line}" for line in log.read_text(errors="replace").splitlines()[-8:]]
        return "\n".join(lines)


def make_site(folder: Path, lab: Lab, values: Mapping[str, Any] | None = None, **cluster: Any) -> Site:
    """A site whose recipe trains a tiny GPT-2 with dropout; `values` replace its own."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_gpt2(folder / "model", dropout=0.1)
    write_rows(folder / "train.jsonl", 200, seed=1)
    write_rows(folder / "validation.jsonl", 20, seed=2)
    (folder / "template.md").write_text(TEMPLATE)
    site = {"kind": "slurm", "runs": str(folder / "runs"), "partition": "GPU", "gpus_per_node": 2, "stop_margin": 3}
    (folder / "lab.yaml").write_text(yaml.safe_dump({**site, **cluster}))
    recipe: dict[str, Any] = {
        "name": "tiny",
        "task": "instruct",
        "cluster": str(folder / "lab.yaml"),
        "model": {"path": "./model"},
        "data": {
            "train": "train.jsonl",
            "validation": "validation.jsonl",
            "template": "template.md",
            "max_length": 192,
            "workers": 2,
            "loss_on": "completion",
        },
        "train": {"steps": 100_000, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3, "save_every": 50},
        "evaluate": {"every": 200},
        "resources": {"gpus": 0, "processes": 1, "walltime": "0:10:00", "queued": 1},
    }
    for key, value in (values or {}).items():
        recipe[key] = {**recipe[key], **value} if isinstance(value, dict) else value
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return Site(folder, lab)


def is_training(job: JobDir, steps: int = 1) -> bool:
    """Whether the job has done so many steps of its own."""
    beat = job.heartbeat or {}
    return job.ended is None and int(beat.get("last_step", 0)) - int((job.resumed or {}).get("step", 0)) >= steps


def queue(lab: Lab, run: RunDir | None = None) -> dict[str, tuple[str, str]]:
    """State and dependency by id of what stands in the queue: all of it, or what is marked as this run's."""
    lines = lab.run("squeue", "--noheader", "--format=%A|%T|%E|%k").splitlines()
    found = {}
    for line in lines:
        number, state, dependency, comment = line.split("|", 3)
        if run is None or comment.startswith(f"hpcft:{run.path}:"):
            found[number] = (state, dependency)
    return found


def processes_of(lab: Lab, slurm_id: str) -> list[int]:
    """Processes of one job: supervisor, workers and data loaders, not Slurm's own slurmstepd."""
    found = []
    for process in job_processes(lab.folder):
        with contextlib.suppress(OSError):
            if f"SLURM_JOB_ID={slurm_id}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def kill_job(lab: Lab, slurm_id: str) -> list[int]:
    """Kill every process of a job at once, as a node does that loses power; those that were there."""
    processes = processes_of(lab, slurm_id)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another die and reacts
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
    return processes


def leaves_nothing(lab: Lab, run: RunDir, seconds: float = 20.0) -> bool:
    """Whether soon no job of the run stands in the queue, and no process of one lives."""
    ids = {job.slurm_id for job in run.jobs() if job.slurm_id}

    def gone() -> bool:
        return not queue(lab, run) and not any(processes_of(lab, number) for number in ids)

    return eventually(gone, seconds=seconds)


def wrappers(folder: Path, scripts: Mapping[str, str]) -> str:
    """A PATH with shell scripts before the programs of their names; `$REAL` in a script is the program itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for program, body in scripts.items():
        real = subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
        path = folder / program
        path.write_text(f"#!/bin/bash\nREAL={real}\n{body}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def counting(folder: Path, programs: Sequence[str] = ("sbatch", "squeue", "sacct", "scontrol", "scancel")) -> str:
    """A PATH on which each call of these programs leaves a line in `folder/calls`."""
    script = f'echo "${{0##*/}} $*" >> {folder}/calls\nexec $REAL "$@"'
    return wrappers(folder, dict.fromkeys(programs, script))


def calls(folder: Path) -> list[str]:
    """The lines of `counting`, which are forgotten then."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def after(seconds: float) -> float:
    """A point of the monotonic clock."""
    return time.monotonic() + seconds
