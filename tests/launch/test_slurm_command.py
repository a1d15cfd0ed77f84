"""A command that is waited for: what becomes of it when Ctrl-C ends the wait."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.fetch import Wanted, fetch
from hpcft.launch.slurm_command import run_command
from hpcft.sections import Model

SLOW = """\
trap 'kill $!; echo asked to end > {0}/ended; exit' TERM
sleep 60 > /dev/null &
: > {0}/started
wait
"""
"""As srun does it: on a TERM, its job is cancelled; a kill leaves the job behind."""


@contextmanager
def interrupted(once: Path) -> Iterator[None]:
    """A block into which Ctrl-C comes as soon as this file is there, to us alone."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until = time.monotonic() + 20
        while not once.exists() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.5)  # by then it is waited for, on a busy machine too
        signal.pthread_kill(main, signal.SIGINT)

    # A shell that puts the tests into the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def by_run_command(folder: Path) -> None:
    run_command(["bash", str(folder / "bin/python")], read=True)


def by_fetch(folder: Path) -> None:
    site = Cluster(name="site", kind="slurm", runs="/r", cache=str(folder / "cache"))
    fetch(Wanted("x", Model(path="owner/tiny"), site, Env(folder)))


@pytest.mark.parametrize("wait", [by_run_command, by_fetch])
def test_ctrl_c_asks_the_command_to_end_and_waits_until_it_has(tmp_path: Path, wait: Callable[[Path], None]) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/bash\n{SLOW.format(tmp_path)}")
    python.chmod(0o755)
    with interrupted(tmp_path / "started"):
        wait(tmp_path)
    assert (tmp_path / "ended").read_text() == "asked to end\n"
