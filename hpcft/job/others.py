"""The other nodes of a job: held through one srun, and given up when they fall silent."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO

from hpcft.children import die_with_parent
from hpcft.job.processes import Death, Meeting
from hpcft.job.verdict import Halt
from hpcft.launch import chain, slurm_step
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir
from hpcft.schema import WHOLE_NODES

SILENCE = 30.0
"""Seconds without a word after which a node counts as dead: it says one every second."""
DOUBT = 5.0
"""The same, once a worker has failed: most likely it lost its peers on a node that died."""
START_PATIENCE = 180.0
"""Seconds until a node's first word: srun, and python on a file system that others use too."""
END_PATIENCE = 15.0
"""Seconds that the nodes have to end their workers, and srun to follow."""
FORCED_PATIENCE = 5.0
"""Seconds that srun has to end a step by force."""


class Others:
    """The nodes of a job beside the supervisor's; what they say is read by a thread."""

    def __init__(self, run: RunDir, job: JobDir, recipe: Recipe) -> None:
        self.ended: dict[int, int] = {}
        """Exit codes by rank of workers that have ended there."""
        self._local = recipe.local_processes
        self._nodes = range(1, recipe.resources.nodes)
        self._whole_nodes = chain.run_cluster(run).gpu_request == WHOLE_NODES
        self._arguments = [str(run.path), str(job.number), str(job.attempt)]
        self._names: dict[int, str] = {}
        self._heard: dict[int, float] = {}
        self._silence = SILENCE
        self._step: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._listen, daemon=True)

    def start(self, environment: Mapping[str, str], meeting: Meeting, log: IO[bytes]) -> None:
        """Start a node.py on each of them; what their workers print goes to this log."""
        node = [sys.executable, "-m", "hpcft.job.node", *self._arguments, meeting.address, str(meeting.port)]
        words = slurm_step.on_other_nodes(len(self._nodes), node, environment, whole_nodes=self._whole_nodes)
        self._begin(words, environment, log)

    def _begin(self, command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        self._heard = dict.fromkeys(self._nodes, time.monotonic() + START_PATIENCE - SILENCE)
        self._step = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
            # srun kills its step when it gets this, should we be killed.
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        self._reader.start()

    def _listen(self) -> None:
        """Take down what the nodes say, until srun has ended. A thread, lest our own waiting looks like silence."""
        assert self._step and self._step.stdout
        for line in self._step.stdout:
            try:
                word = json.loads(line)
                ended = {int(rank): int(code) for rank, code in word["ended"].items()}
                self._names[word["node"]] = word["name"]
            except (ValueError, KeyError, TypeError):
                print(f"hpcft: a node said {line!r}", file=sys.stderr, flush=True)  # a prolog of the site's
                continue
            self._heard[word["node"]] = time.monotonic()
            self.ended = {**self.ended, **ended}  # a new one each time: the supervisor reads it meanwhile

    def hear_all(self) -> None:
        """Wait for a word of each node, now that a worker has failed somewhere: briefly, since one may be dead."""
        begun = time.monotonic()
        while not self._gone() and any(self._heard[node] < begun for node in self._open()):
            if time.monotonic() - begun > DOUBT:
                self._silence = DOUBT
                return
            time.sleep(0.1)

    def deaths(self) -> list[Death]:
        """Workers there that have failed, and those of nodes that nothing is heard of any more."""
        dead = [Death(rank, code, node=self._name(rank)) for rank, code in self.ended.items() if code]
        for node in self._open():
            rank = node * self._local
            name, silent = self._name(rank), time.monotonic() - self._heard[node] > self._silence
            if self._gone() and name is None:  # it never began: the log says why
                dead.append(Death(rank, self._step.returncode if self._step else 1))
            elif silent or self._gone():
                what = "nothing is heard of it" if silent else "its srun has ended"
                why = Halt(f"the node {name or f'number {node + 1}'} was lost: {what}", "See `hpcft logs`.")
                dead.append(Death(rank, -9, why, name))
        return dead

    def _open(self) -> list[int]:
        """Nodes with workers that have not ended, as far as we know."""
        ended = self.ended
        return [node for node in self._nodes if len([r for r in ended if r // self._local == node]) < self._local]

    def _gone(self) -> bool:
        return self._step is not None and self._step.poll() is not None

    def _name(self, rank: int) -> str | None:
        return self._names.get(rank // self._local)

    def let_go(self) -> None:
        """Tell the nodes to end their workers and themselves."""
        if self._step and self._step.stdin:
            with contextlib.suppress(OSError):
                self._step.stdin.close()

    def wait(self) -> None:
        """Wait until they are gone; a node that does not answer is left to Slurm, which ends the job there."""
        if self._step is None:
            return
        answering = self._silence == SILENCE
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                self._step.send_signal(number)
            elif not answering:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._step.wait(FORCED_PATIENCE if number else END_PATIENCE)
                break
        self._reader.join(1.0)
