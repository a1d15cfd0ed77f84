"""TensorBoard over the views of several runs, kept in step with them until the user has seen enough."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpcft.curves.server import link_by_job, link_stitched, start_tensorboard, tunnel_command
from hpcft.curves.stitch import JobCurve, Stitched
from hpcft.curves.view import Picture, View

POLL_SECONDS = 3.0


Shown = tuple[Sequence[JobCurve], Sequence[Picture], Callable[[Stitched], str]]


def serve(runs: Mapping[str, Callable[[], Shown]], port: int | None) -> None:
    """Return when TensorBoard has ended or Ctrl-C was pressed; the views, on local disk, are gone then.

    `runs` gives for each name what `View.poll` wants, as it is at that moment. Raises RuntimeError if TensorBoard does
    not start.
    """
    root = Path(tempfile.mkdtemp(prefix="hpcft-tensorboard-"))
    try:
        views = {name: View(root / name) for name in runs}
        for name, shown in runs.items():
            views[name].poll(*shown())
        server = start_tensorboard(root, port=port)
        try:
            full = socket.getfqdn()  # localhost where the resolver knows no better
            host = socket.gethostname() if full.startswith("localhost") else full
            login = f"{getpass.getuser()}@{host}"
            print(f"from your own computer first:  {tunnel_command(server.port, login)}")
            print(f"by job:    {link_by_job(server.url)}")
            print(f"stitched:  {link_stitched(server.url)}")
            print("Ctrl-C ends it.", flush=True)
            _keep_up(views, runs, server.process.wait)
        finally:
            server.process.terminate()
            server.process.wait()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _keep_up(views: Mapping[str, View], runs: Mapping[str, Callable[[], Shown]], wait: Callable[..., int]) -> None:
    while True:
        try:
            wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            for name, shown in runs.items():
                with contextlib.suppress(OSError):  # a later poll makes good what is missing
                    views[name].poll(*shown())
        except KeyboardInterrupt:
            return
        else:
            return
