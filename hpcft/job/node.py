"""What holds the workers of another node: `python -m hpcft.job.node RUN NUMBER ATTEMPT ADDRESS PORT`, through srun.

Its stdin comes from the supervisor and carries nothing: when it ends, supervisor or srun are gone, and so are we.
Its stdout goes to the supervisor, a JSON object a line: `{"node": 1, "name": "gpu2", "ended": {"3": -9}}`, once a
second and when something changes. Its stderr is the log of the workers.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from hpcft.job.processes import Meeting, NodeProcesses
from hpcft.launch import chain
from hpcft.rundir import RunDir
from hpcft.scratch import scratch_folder

TICK = 0.1
"""Seconds between two looks at the workers."""
BEAT = 1.0
"""Seconds between two words to the supervisor."""


def main(run_path: str, number: str, attempt: str, address: str, port: str) -> int:
    """0, when the supervisor has let go of us; every worker of this node is gone then."""
    # Slurm sends these to all steps of a job, and the supervisor to itself: it alone decides what they mean.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    run = RunDir(Path(run_path))
    job, recipe = run.job(int(number), int(attempt)), run.recipe
    node = 1 + int(os.environ["SLURM_NODEID"])  # of the step, which leaves the supervisor's node out
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    with scratch_folder() as scratch:
        processes = NodeProcesses(run, job, recipe, scratch, chain.run_cluster(run).internet, node)
        try:
            processes.start(os.environ, Meeting(address, int(port)), sys.stderr.buffer)
            _report(processes, {"node": node, "name": name})
        except BrokenPipeError:
            pass  # srun is gone
        finally:
            processes.kill()
    return 0


def _report(processes: NodeProcesses, who: dict[str, object]) -> None:
    """Say how the workers are, until stdin ends."""
    told, last = None, 0.0
    while not _stdin_ends(TICK):
        ended = processes.ended()
        if ended != told or time.monotonic() - last >= BEAT:
            told, last = ended, time.monotonic()
            print(json.dumps({**who, "ended": ended}), flush=True)


def _stdin_ends(patience: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], patience)
    return bool(ready) and not os.read(sys.stdin.fileno(), 4096)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # Python would complain of a stdout that nobody reads any more
