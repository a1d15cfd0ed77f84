"""The workers of a job: one process a GPU, started with their ranks, watched, and gone when the job is."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcft.job.verdict import Halt
from hpcft.launch.condaenv import worker_variables
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that nothing outlives a killed job."""
    LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _before_exec(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        # A worker stops at a step boundary when the supervisor says so, never in the middle of one by a signal
        # that the scheduler sprayed over all processes; being ignored survives exec. They are blocked too, for
        # the data loaders: torch gives those a handler for SIGTERM (2.13), and training fails when one dies.
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)  # the supervisor died before the kernel knew of our wish

    return prepare


def free_port() -> int:
    """A TCP port of this node that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def threads(recipe: Recipe) -> int:
    """Threads of each worker: a fixed number, since the bits of a CPU sum depend on it."""
    return recipe.resources.cpus_per_process or 1


def variables(recipe: Recipe, rank: int, port: int, internet: bool) -> dict[str, str]:
    """What one worker finds in its environment beside what the job has."""
    extra: dict[str, str] = {}
    if recipe.processes > 1:  # with these set, torch would make a group of one and wrap the model for it
        extra |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(recipe.processes),
            "LOCAL_WORLD_SIZE": str(recipe.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",  # a node's own name need not resolve
        }
    return {
        **worker_variables(threads(recipe), internet),
        **extra,
    }


@dataclass(frozen=True)
class Death:
    """A worker that ended other than it should."""

    rank: int
    code: int
    """Exit code; negative for a signal."""
    why: Halt | None = None
    """Why we ended it ourselves, if we did."""


class Workers:
    """The training processes of one job."""

    def __init__(self, run: RunDir, job: JobDir, recipe: Recipe, scratch: Path, internet: bool) -> None:
        self.stop_file = scratch / "stop"
        self.progress_file = scratch / "progress.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._arguments = [str(run.path), str(job.number), str(job.attempt), str(scratch)]
        self._scratch = str(scratch)
        self._recipe, self._log, self._internet = recipe, job.log, internet

    def start(self, environment: Mapping[str, str]) -> None:
        """Start one process a rank, each a session of its own, all writing to the job's log."""
        port = free_port()
        temporary = {"TMPDIR": self._scratch}  # killed data loaders leave their sockets, and we remove this
        with self._log.open("ab") as log:
            for rank in range(self._recipe.processes):
                process = subprocess.Popen(
                    [sys.executable, "-m", "hpcft.train.worker", *self._arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environment, **variables(self._recipe, rank, port, self._internet), **temporary},
                    start_new_session=True,
                    preexec_fn=_before_exec(os.getpid()),
                )
                self.processes.append(process)

    def ask_to_stop(self, reason: str) -> None:
        """Raise the flag that rank 0 looks at in every micro-step."""
        if not self.stop_file.exists():
            temporary = self.stop_file.with_suffix(".new")
            temporary.write_text(reason)
            temporary.replace(self.stop_file)

    def death(self) -> Death | None:
        """The first worker that failed, if one has."""
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if code:
                return Death(rank, code)
        return None

    def all_ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def kill(self) -> None:
        """End every worker and all that it started, and wait until they are gone."""
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.processes:
            process.wait()
        self._wait_for_groups()

    def _wait_for_groups(self) -> None:
        """Wait until no data loader of theirs is left, which the kernel, not we, reaps."""
        deadline = time.monotonic() + 5.0
        for process in self.processes:
            while time.monotonic() < deadline:
                try:
                    os.killpg(process.pid, 0)
                except (ProcessLookupError, PermissionError):
                    break
                time.sleep(0.05)
