"""TensorBoard as a process of its own, and the links that show a run by job or as one curve."""

import contextlib
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hpcft.children import dying_with
from hpcft.curves.view import RELOAD_SECONDS, STITCHED

_PINNED = json.dumps([{"plugin": "scalars", "tag": tag} for tag in ("train/loss", "validation/loss")])
"""What stands at the head of a page, before all other charts."""
_BY_JOB = "by-job"
_RUNS_APART = 3
"""So many runs can have two colours each."""
_AT_EVERY_START = (
    *("TensorFlow installation not found", "NOTE: Using experimental fast data loading", '    "--load_fast=false"'),
    *("    https://github.com/tensorflow/tensorboard/issues/4784", "TensorBoard 2."),
)
"""How the lines begin that TensorBoard 2.21 says although nothing is wrong."""
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
    private: Path
    """Its folder for temporary files."""

    @property
    def by_job(self) -> str:
        """The page that shows each job in a colour of its own."""
        return self.url + _BY_JOB

    @property
    def stitched(self) -> str:
        """The page that shows each run as one curve."""
        return self.url + STITCHED

    def stop(self) -> None:
        """End it, and its data server with it."""
        self.process.terminate()
        try:
            self.process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.words.close()
        shutil.rmtree(self.private, ignore_errors=True)

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
    # It writes port and secret path into TMPDIR, where in /tmp all users of this machine could read them.
    private = Path(tempfile.mkdtemp(prefix=".tensorboard-", dir=view_root.parent))
    words = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("board.py"))],
        env={**os.environ, "TMPDIR": str(private)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=words,
        start_new_session=True,  # a Ctrl-C is for us, who end it
        preexec_fn=dying_with(os.getpid()),
    )
    server = TensorBoard(process, port, f"http://{host}:{port}{prefix}/", words, private)
    try:
        assert process.stdin
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # then it has ended, and says why
            pipe.write(json.dumps({"arguments": arguments, "pages": pages()}).encode())
        _wait_until_it_answers(server, seconds)
    except BaseException:
        server.stop()
        raise
    return server


def pages() -> dict[str, list[tuple[int | None, str]]]:
    """What each short link leads to, from so many runs at most on, None = any number: see `board`."""
    return {
        _BY_JOB: [(limit, _query_by_job(limit)) for limit in (1, _RUNS_APART, None)],
        STITCHED: [(None, _query({"runFilter": f"(^|/){STITCHED}$"}))],
    }


def _query_by_job(runs: int | None) -> str:
    """What shows so many runs by job, None = any number; unsmoothed, since smoothing would begin anew at every job.

    TensorBoard has seven colours, which it hands out in the order in which its runs began: jobs of one run always
    follow each other in other colours, those of several need not. So two or three runs get two colours each, which take
    turns, and of more runs the number of the job decides. An attempt, `.2`, has a colour of its own too.
    """
    query = {"runFilter": r"(^|/)job\d+-[^/]*$", "smoothing": "0"}
    if runs is None:
        query["runColorGroup"] = r"regex:job(\d+)-[^/.]*(\.\d+)?$"
    elif runs > 1:
        query["runColorGroup"] = r"regex:(.*)job\d*(?:[02468]|[13579]())-[^/.]*(\.\d+)?$"
    return _query(query)


def _query(query: Mapping[str, str]) -> str:
    every = {**query, "pinnedCards": _PINNED}
    return f"?{urllib.parse.urlencode(every, quote_via=urllib.parse.quote, safe='')}#timeseries"


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


def print_links(server: TensorBoard, login: str, node: str | None = None) -> None:
    """Print how the runs are seen from the user's own computer; with `node`, from a job there."""
    print(f"from your own computer first:  {tunnel_command(server.port, login, node)}")
    print(f"by job:    {server.by_job}")
    print(f"stitched:  {server.stitched}")
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
