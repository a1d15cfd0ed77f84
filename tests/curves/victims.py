"""Processes for the tests to kill, and what they do until then."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from hpcft.curves import view as view_module
from hpcft.curves.events import file_name, scalar_event, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.stitch import JobCurve
from hpcft.curves.view import View


def poll_until_back(view: View, jobs: Sequence[JobCurve]) -> None:
    """A run that was away is back at the next poll, since here it need not be away for long."""
    for _ in range(2):
        view.poll(jobs)


def write(at_it: Connection, job: JobCurve, seed: int) -> None:
    """Log on and on, a few bytes at a time, by a clock of its own."""
    chance = random.Random(seed)
    clock = chance.uniform(0, 1e6)
    assert job.resume_step is not None
    job.directory.mkdir(exist_ok=True)
    path = job.directory / file_name(1)
    waiting, step = encode_frames([version_event(clock)]), job.resume_step
    with path.open("ab", buffering=0) as file:
        at_it.send(None)
        while True:
            step += 1
            tags = ["train/loss", "train/rate"] + ["validation/loss"] * (step % 5 == 0)
            waiting += encode_frames([scalar_event(tag, job.number + step / 1e4, step, clock + step) for tag in tags])
            while len(waiting) > 200:
                size = chance.randint(1, 150)
                file.write(waiting[:size])
                waiting = waiting[size:]


def follow(at_it: Connection, view: Path, jobs: Sequence[JobCurve]) -> None:
    """Keep the view, poll after poll."""
    view_module.SECONDS_AWAY = 0
    keeper = View(view)
    at_it.send(None)
    while True:
        keeper.poll(jobs)


def full_then_free(view: Path, jobs: Sequence[JobCurve], size: int) -> None:
    """A view whose files may have so many bytes, and then any number."""
    view_module.SECONDS_AWAY = 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    keeper = View(view)
    for _ in range(3):
        with contextlib.suppress(OSError):
            keeper.poll(jobs)
            os._exit(3)  # it should have been refused
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    poll_until_back(keeper, jobs)
    os._exit(0)
