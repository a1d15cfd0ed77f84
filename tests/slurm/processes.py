"""Processes and ports of this machine: what the private Slurm starts, finds again and stops."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class LabError(Exception):
    """The private Slurm cannot be had; the message says why, with the end of the log that knows."""


PORTS = range(20_000, 32_000)
"""Below those that Linux hands out to whoever connects: nobody takes one between our look and our start."""


@dataclass(frozen=True)
class Daemon:
    """A process that we started, safe against its number going to somebody else."""

    process_id: int
    started: int
    """Clock ticks since boot, as in /proc."""
    child: subprocess.Popen[bytes] | None = None
    """Given where this very process started it, which must then collect it too."""

    def alive(self) -> bool:
        """Does it still run?"""
        if self.child is not None:
            return self.child.poll() is None
        return start_time(self.process_id) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, number)


def find_program(name: str) -> str | None:
    """Where a program is; in the sbin folders too, which only root has on its PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """So many different ports of this machine that nobody listens on."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise LabError(f"fewer than {count} free ports between {PORTS.start} and {PORTS.stop}")


def start_time(process_id: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before ")" may hold anything
    return None if state in "ZX" else int(fields[18])


def job_processes(folder: Path) -> list[int]:
    """Processes of this cluster's jobs that still live.

    What the job started has the job and this cluster's slurm.conf in its variables; slurmstepd above it wipes
    its variables, but stands in the folder.
    """
    conf, found = f"SLURM_CONF={folder / 'etc/slurm.conf'}".encode(), []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            of_job = conf in variables and any(each.startswith(b"SLURM_JOB_ID=") for each in variables)
            of_step = (process / "cmdline").read_bytes().startswith(b"slurmstepd")
            if of_job or (of_step and (process / "cwd").readlink() == folder):
                found.append(int(process.name))
    return found


def kill_jobs(folder: Path) -> None:
    """Kill what job_processes finds."""
    for process in job_processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def eventually(true: Callable[[], bool], *, seconds: float) -> bool:
    """Is it true within so many seconds? Looks ten times a second; a LabError counts as not yet."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(LabError):
            if true():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
