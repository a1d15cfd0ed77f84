"""The workers of a job, on its own node and on the others: started, asked to stop, and gone when the job is."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from hpcft.job.deadline import slurm_job_id
from hpcft.job.others import Others
from hpcft.job.processes import Death, Meeting, NodeProcesses
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir

REFUSED = 2
"""Exit code of a worker that found a fault of the user's and wrote fault.json."""
SETTLE = 1.0
"""Seconds from the first death to the verdict: the worker that took the others with it may be seen after them."""
PORTS = range(15_000, 32_000)
"""Below those that Linux hands out to whoever connects."""


def find_meeting(nodes: int) -> Meeting:
    """Where rank 0 of a job on so many nodes listens, which is on this one."""
    if nodes == 1:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return Meeting("127.0.0.1", listener.getsockname()[1])
    return Meeting(node_name(), free_port(int(slurm_job_id() or 0)))


def node_name() -> str:
    """This node's name for the others: Slurm's, if it is a name of the network too, else the machine's own."""
    with contextlib.suppress(OSError, KeyError):
        socket.getaddrinfo(os.environ["SLURMD_NODENAME"], None)
        return os.environ["SLURMD_NODENAME"]
    return socket.gethostname()


def free_port(job_id: int) -> int:
    """A port of this node that nobody listens on: the first from the job's own, so that no two jobs try the same."""
    for number in range(len(PORTS)):
        port = PORTS[(job_id + number) % len(PORTS)]
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port
    raise OSError("no free port")


class Workers:
    """The training processes of one job."""

    def __init__(self, run: RunDir, job: JobDir, recipe: Recipe, scratch: Path, internet: bool) -> None:
        self.stop_file = scratch / "stop"
        self.progress_file = scratch / "progress.json"
        self._here = NodeProcesses(run, job, recipe, scratch, internet)
        self._others = Others(run, job, recipe) if recipe.resources.nodes > 1 else None
        self._log, self._all = job.log, recipe.processes
        self._nodes = recipe.resources.nodes

    def start(self, environment: Mapping[str, str]) -> None:
        """Start one process a rank, on every node, all writing to the job's log."""
        meeting = find_meeting(self._nodes)
        with self._log.open("ab") as log:
            if self._others:
                self._others.start(environment, meeting, log)
            self._here.start(environment, meeting, log)

    def ask_to_stop(self, reason: str) -> None:
        """Raise the flag that rank 0, which is on this node, looks at in every micro-step."""
        if not self.stop_file.exists():
            temporary = self.stop_file.with_suffix(".new")
            temporary.write_text(reason)
            temporary.replace(self.stop_file)

    def death(self) -> Death | None:
        """The worker whose failure explains those of the others; None if none has failed.

        Who loses a peer fails too, with a word about its connection: so what found a fault, and then what was
        killed, goes first.
        """
        dead = [Death(rank, code) for rank, code in self._here.ended().items() if code]
        dead += self._others.deaths() if self._others else []
        return min(dead, key=lambda death: (death.code != REFUSED, death.code >= 0), default=None)

    def settle(self) -> None:
        """Wait, now that one has failed, until all that will fail for the same reason have."""
        time.sleep(SETTLE)
        if self._others:
            self._others.hear_all()

    def any_ended(self) -> bool:
        """Whether a worker has ended."""
        return bool(self._ended())

    def all_ended(self) -> bool:
        """Whether all workers have ended."""
        return len(self._ended()) == self._all

    def _ended(self) -> dict[int, int]:
        return {**self._here.ended(), **(self._others.ended if self._others else {})}

    def kill(self) -> None:
        """End every worker and all that it started, and wait until they are gone."""
        if self._others:
            self._others.let_go()
        self._here.kill()
        if self._others:
            self._others.wait()
