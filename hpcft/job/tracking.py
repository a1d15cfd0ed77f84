"""The processes that hand a run's curve on to other trackers: beside the workers, and of no consequence to them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Self

from hpcft.children import die_with_parent
from hpcft.launch.trackfit import variables
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir

PATIENCE = 60.0
"""Seconds, at most, that a job waits at its end until its trackers have the rest."""
GONE = 10.0
"""Seconds that a killed process gets until it is gone."""
NICE = 10
"""They yield the cores to the workers."""
LOG = "trackers.txt"
"""What trackers print, beside the job's log; there it would be taken for what has ended the job."""


class Tracking:
    """One process for each tracker of the recipe, on the node of rank 0."""

    def __init__(self, run: RunDir, job: JobDir, recipe: Recipe, internet: bool) -> None:
        self._run, self._job, self._internet = run, job, internet
        self._names = list(dict.fromkeys(recipe.track.to))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()

    def start(self, environment: Mapping[str, str]) -> None:
        """Start them. Raises nothing: a job trains without them too."""
        words = [str(self._run.path), str(self._job.number), str(self._job.attempt)]
        for name in self._names:
            try:
                with (self._job.path / LOG).open("ab") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "hpcft.train.track", *words, name],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={**environment, **variables(self._internet)},
                        cwd=self._job.path,
                        start_new_session=True,
                        preexec_fn=_before_exec(os.getpid()),
                    )
            except (OSError, subprocess.SubprocessError) as error:
                print(f"hpcft: {name} gets no points of this job: {error}", file=sys.stderr, flush=True)
                continue
            self._processes.append(process)

    def end(self, seconds: float) -> None:
        """Let them hand on the rest, in so many seconds at most, and see to it that they are gone."""
        until = time.monotonic() + min(PATIENCE, seconds)
        for process in self._processes:
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        self._kill()

    def _kill(self) -> None:
        """End them and what they have started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GONE)  # one that hangs in a file system is left behind
        self._processes = []


def _before_exec(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        # The scheduler's signals are for the supervisor, which lets us hand on the rest.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.nice(NICE)
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)

    return prepare
