"""TensorBoard as a process of its own, and the links that show a run by job or as one curve."""

import getpass
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hpcft.children import dying_with
from hpcft.curves.view import RELOAD_SECONDS, STITCHED

_ARGUMENTS = "HPCFT_TENSORBOARD_ARGUMENTS"
_LAUNCH = f"""\
import os, sys
sys.argv[1:] = os.environ.pop("{_ARGUMENTS}").split("\\n")
from tensorboard.main import run_main
run_main()
"""
"""The arguments travel in a variable: all users of a login node can read a command line."""


_AT_EVERY_START = (
    *("TensorFlow installation not found", "NOTE: Using experimental fast data loading", '    "--load_fast=false"'),
    *("    https://github.com/tensorflow/tensorboard/issues/4784", "TensorBoard 2."),
)
"""How the lines begin that TensorBoard 2.21 says although nothing is wrong."""
_RUNS_APART = 3
"""So many runs can have two colours each."""
FAREWELL = 5.0
"""Seconds that TensorBoard has to end by itself."""


@dataclass(frozen=True)
class TensorBoard:
    """A TensorBoard that was started; it dies with this process, however that ends."""

    process: subprocess.Popen[bytes]
    port: int
    url: str
    """With the secret path and a slash at its end: `http://127.0.0.1:6006/Zk3…/`."""
    words: IO[bytes] = field(repr=False)
    """What it has complained of."""

    def stop(self) -> None:
        """End it, and its data server with it."""
        self.process.terminate()
        try:
            self.process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.words.close()

    def obituary(self) -> str:
        """How it ended by itself: `TensorBoard ended with code 255: …`, with its last words."""
        code = self.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"TensorBoard {how}:\n{_last_words(self.words)}"


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
    words = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH],
        env={**os.environ, _ARGUMENTS: "\n".join(arguments)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=words,
        start_new_session=True,  # a Ctrl-C is for us, who end it
        preexec_fn=dying_with(os.getpid()),
    )
    server = TensorBoard(process, port, f"http://{host}:{port}{prefix}/", words)
    try:
        _wait_until_it_answers(server, seconds)
    except BaseException:
        server.stop()
        raise
    return server


def link_by_job(url: str, runs: int = 1) -> str:
    """The page that shows each job in its own colour, unsmoothed: smoothing would begin anew at every job.

    `runs` are shown side by side. TensorBoard has seven colours, which it hands out in the order in which its runs
    began: jobs of one run always follow each other in other colours, those of several need not. So two or three runs
    get two colours each, which take turns, and of more runs the number of the job decides.
    """
    query = {"runFilter": r"(^|/)job\d+-[^/]*$", "smoothing": "0"}
    if runs > 1:
        number = r"\d*(?:[02468]|[13579]())" if runs <= _RUNS_APART else r"(\d+)"
        # The attempt, `.2`, has a colour of its own too.
        query["runColorGroup"] = rf"regex:{'(.*)' if runs <= _RUNS_APART else ''}job{number}-[^/.]*(\.\d+)?$"
    return f"{url}?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe='')}#timeseries"


def link_stitched(url: str) -> str:
    """The page that shows each run as one curve."""
    run_filter = urllib.parse.quote(f"(^|/){STITCHED}$", safe="")
    return f"{url}?runFilter={run_filter}#timeseries"


def tunnel_command(port: int, login: str, node: str | None = None) -> str:
    """The line to type on one's own computer so that the links work there; `login` as in `user@host`.

    With `node`, TensorBoard runs there, and ssh goes by the login node.
    """
    user = login.partition("@")[0]
    way = f"-J {login} {user}@{node}" if node else login
    return f"ssh -N -L {port}:127.0.0.1:{port} {way}"


def login_name() -> str:
    """This user on this node, as ssh is told: `ada@login02.hpc.org`."""
    full = socket.getfqdn()  # localhost where the resolver knows no better
    host = socket.gethostname() if full.startswith("localhost") else full
    return f"{getpass.getuser()}@{host}"


def print_links(server: TensorBoard, runs: int, login: str, node: str | None = None) -> None:
    """Print how so many runs are seen from the user's own computer; with `node`, from a job there."""
    print(f"from your own computer first:  {tunnel_command(server.port, login, node)}")
    print(f"by job:    {link_by_job(server.url, runs)}")
    print(f"stitched:  {link_stitched(server.url)}")
    print("Ctrl-C ends it.", flush=True)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(server: TensorBoard, seconds: float) -> None:
    # Login nodes often name a proxy for the web; it must not be asked for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        if server.process.poll() is not None:
            raise RuntimeError(server.obituary())
        try:
            with opener.open(server.url + "data/environment", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        if time.monotonic() > deadline:
            raise RuntimeError(f"TensorBoard did not answer for {seconds:.0f} s:\n{_last_words(server.words)}")


def _last_words(words: IO[bytes]) -> str:
    size = os.fstat(words.fileno()).st_size
    said = os.pread(words.fileno(), size, 0).decode(errors="replace")  # pread: it writes where this file stands
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(_AT_EVERY_START)]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return "\n".join(errors or lines)[-2000:] or "(it said nothing)"
