"""The training processes of one node: started with their ranks, and gone when whoever started them is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcft.children import dying_with
from hpcft.job.verdict import Halt
from hpcft.launch.condaenv import worker_variables
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir


def _before_exec(parent: int) -> Callable[[], None]:
    die = dying_with(parent)

    def prepare() -> None:
        # A worker stops at a step boundary when the supervisor says so, never in the middle of one by a signal
        # that the scheduler sprayed over all processes; being ignored survives exec. They are blocked too, for
        # the data loaders: torch gives those a handler for SIGTERM (2.13), and training fails when one dies.
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        die()

    return prepare


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a job find each other: on the node of rank 0."""

    address: str
    port: int


@dataclass(frozen=True)
class Death:
    """A worker that ended other than it should."""

    rank: int
    code: int
    """Exit code; negative for a signal."""
    why: Halt | None = None
    """Why we ended it ourselves, or count it as dead, if that is so."""
    node: str | None = None
    """Its node, where that is not the supervisor's."""


def threads(recipe: Recipe) -> int:
    """Threads of each worker: a fixed number, since the bits of a CPU sum depend on it."""
    return recipe.resources.cpus_per_process or 1


def variables(recipe: Recipe, rank: int, meeting: Meeting, internet: bool) -> dict[str, str]:
    """What one worker finds in its environment beside what the job has."""
    extra: dict[str, str] = {}
    if recipe.processes > 1:  # with these set, torch would make a group of one and wrap the model for it
        extra |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % recipe.local_processes),
            "WORLD_SIZE": str(recipe.processes),
            "LOCAL_WORLD_SIZE": str(recipe.local_processes),
            "MASTER_ADDR": meeting.address,
            "MASTER_PORT": str(meeting.port),
        }
        if recipe.resources.nodes == 1:
            extra["GLOO_SOCKET_IFNAME"] = "lo"  # a node's own name need not resolve
    return {
        **worker_variables(threads(recipe), internet),
        **extra,
    }


class NodeProcesses:
    """The training processes of one node, children of this process."""

    module = "hpcft.train.worker"

    def __init__(self, run: RunDir, job: JobDir, recipe: Recipe, scratch: Path, internet: bool, node: int = 0) -> None:
        """`node`: its number in the job, from 0. `scratch`: a folder of this node's that lasts as long as the job."""
        first = node * recipe.local_processes
        self.ranks = range(first, first + recipe.local_processes)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._arguments = [str(run.path), str(job.number), str(job.attempt), str(scratch)]
        self._scratch = str(scratch)
        self._recipe, self._internet = recipe, internet

    def start(self, environment: Mapping[str, str], meeting: Meeting, log: IO[bytes]) -> None:
        """Start one process a rank, each a session of its own."""
        temporary = {"TMPDIR": self._scratch}  # killed data loaders leave their sockets, and we remove this
        for rank in self.ranks:
            self._processes[rank] = subprocess.Popen(
                [sys.executable, "-m", self.module, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, **variables(self._recipe, rank, meeting, self._internet), **temporary},
                start_new_session=True,
                preexec_fn=_before_exec(os.getpid()),
            )

    def ended(self) -> dict[int, int]:
        """Exit codes by rank of those that have ended; negative for a signal."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        return {rank: code for rank, code in codes.items() if code is not None}

    def kill(self) -> None:
        """End every worker and all that it started, and wait until they are gone."""
        for process in self._processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes.values():
            process.wait()
        self._wait_for_groups()

    def _wait_for_groups(self) -> None:
        """Wait until no data loader of theirs is left, which the kernel, not we, reaps."""
        deadline = time.monotonic() + 5.0
        for process in self._processes.values():
            while time.monotonic() < deadline:
                try:
                    os.killpg(process.pid, 0)
                except (ProcessLookupError, PermissionError):
                    break
                time.sleep(0.05)
