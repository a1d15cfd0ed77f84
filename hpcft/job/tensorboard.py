"""`hpcft tensorboard --on-node`, on the node: `python -m hpcft.job.tensorboard RUNS LOGIN PORT NAME…`, through srun.

PORT is empty for any free one, and without a NAME all runs of the folder are shown. Its stdin comes from the hpcft
that was called and carries nothing: when it ends, that one is gone, and so are we.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from hpcft.curves.serve import runs_in, serve
from hpcft.curves.server import TensorBoard, print_links
from hpcft.launch import slurm

MARGIN = 20.0
"""Seconds before the end of the walltime, in which all is cleaned up; Slurm would kill and complain."""


def main(runs: str, login: str, port: str, *names: str) -> int:
    """0 when it was ended from the login node or by the walltime; 1, with the reason on stderr, when by itself."""
    number = os.environ["SLURM_JOB_ID"]
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    end = slurm.end_time(number)
    threading.Thread(target=_leave_with_stdin, daemon=True).start()

    def announce(server: TensorBoard) -> None:
        when = f", until {time.strftime('%H:%M on %d %b', time.localtime(end))}" if end else ""
        print(f"job {number} on {node}{when}")
        print_links(server, login, node)

    try:
        serve(runs_in(Path(runs), names), announce, int(port) if port else None, end and end - MARGIN)
    except RuntimeError as error:
        print(f"hpcft: tensorboard: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except SystemExit:
        return 0  # a scancel, or the end of stdin
    if end and time.time() >= end - MARGIN:
        print("The walltime of the job is over. Call it again, with a longer --walltime.")
    return 0


def _leave_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread still reads, or nobody reads our stdout any more
