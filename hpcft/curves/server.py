"""TensorBoard as a process of its own, and the links that show a run by job or as one curve."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcft.curves.view import RELOAD_SECONDS, STITCHED

_ARGUMENTS = "HPCFT_TENSORBOARD_ARGUMENTS"
_LAUNCH = f"""\
import os, sys
sys.argv[1:] = os.environ.pop("{_ARGUMENTS}").split("\\n")
from tensorboard.main import run_main
run_main()
"""
"""The arguments travel in a variable: all users of a login node can read a command line."""


@dataclass(frozen=True)
class TensorBoard:
    """A TensorBoard that answers."""

    process: subprocess.Popen[bytes]
    """The caller's to terminate."""
    port: int
    url: str
    """With the secret path and a slash at its end: `http://127.0.0.1:6006/Zk3…/`."""


def start_tensorboard(
    view_root: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    seconds: float = 90.0,
    extra: Sequence[str] = (),
) -> TensorBoard:
    """A TensorBoard over all views below `view_root`, once it answers; `port` None = any free one.

    TensorBoard has no login, so it listens on this machine alone, under a path that cannot be guessed.
    `extra` are further arguments of its own. Raises RuntimeError with its last words if it ends, or if it
    is silent for `seconds`.
    """
    port = _free_port(host) if port is None else port
    prefix = "/" + secrets.token_urlsafe(12)
    arguments = [
        *("--logdir", str(view_root), "--host", host, "--port", str(port), "--path_prefix", prefix),
        # Enough that a curve is shown whole: thinning is random and may drop the point that joins two jobs.
        *("--samples_per_plugin", "scalars=100000,images=100,text=200"),
        *("--reload_interval", str(RELOAD_SECONDS), *extra),
    ]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH],
            env={**os.environ, _ARGUMENTS: "\n".join(arguments)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        server = TensorBoard(process, port, f"http://{host}:{port}{prefix}/")
        _wait_until_it_answers(server, words, seconds)
    return server


def link_by_job(url: str) -> str:
    """The page that shows each job in its own colour, unsmoothed: smoothing would begin anew at every job."""
    run_filter = urllib.parse.quote(r"(^|/)job\d+-[^/]*$", safe="")
    return f"{url}?runFilter={run_filter}&smoothing=0#timeseries"


def link_stitched(url: str) -> str:
    """The page that shows each run as one curve."""
    run_filter = urllib.parse.quote(f"(^|/){STITCHED}$", safe="")
    return f"{url}?runFilter={run_filter}#timeseries"


def tunnel_command(port: int, login: str) -> str:
    """The line to type on one's own computer so that the links work there; `login` as in `user@host`."""
    return f"ssh -N -L {port}:127.0.0.1:{port} {login}"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(server: TensorBoard, words: IO[bytes], seconds: float) -> None:
    # Login nodes often name a proxy for the web; it must not be asked for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        if server.process.poll() is not None:
            code = server.process.returncode
            raise RuntimeError(f"TensorBoard ended with code {code}:\n{_last_words(words)}")
        try:
            with opener.open(server.url + "data/environment", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        if time.monotonic() > deadline:
            server.process.kill()
            server.process.wait()
            raise RuntimeError(f"TensorBoard did not answer for {seconds:.0f} s:\n{_last_words(words)}")


def _last_words(words: IO[bytes]) -> str:
    words.seek(0)
    said = words.read().decode(errors="replace")
    # It also says at every start that TensorFlow is missing and that fast loading is new; neither is the reason.
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return "\n".join(errors) or said[-2000:].strip() or "(it said nothing)"
