"""Killed while it saves, at any instant: what was whole stays whole, and nothing is left that grows."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpcft.rundir import RunDir
from hpcft.train import checkpoint
from hpcft.train.snapshot import Snapshot
from hpcft.train.writer import Writer

KILLS = 40


def save_for_ever(path: Path, first: int, told: Connection) -> None:
    """Save a checkpoint a step, beside a training that changes its tensors meanwhile; tell each step that is whole."""
    run, writer, snapshot = RunDir(path), Writer(), Snapshot(cuda=False)
    weight = torch.empty(50_000)
    step = first
    while True:
        step += 1
        weight.fill_(step)
        files = snapshot.take({"model": {"weight": weight}, "optimizer": {"moment": weight}})
        state = {"step": step}
        writer.start(step, lambda state=state, files=files: checkpoint.save(run, state, files, keep=2))  # type: ignore[misc]
        weight.fill_(-1.0)
        outcome = writer.collect(wait=True)
        assert outcome and outcome.error is None
        told.send(step)


@pytest.mark.slow
def test_a_kill_at_any_instant_of_a_save_leaves_the_newest_whole_and_no_debris(tmp_path: Path) -> None:
    run, chance, newest = RunDir(tmp_path), random.Random(0), 0
    # Not forked from this process, whose threads torch has in use: from one that has only imported what is needed.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    for number in range(KILLS):
        read, write = context.Pipe(duplex=False)
        saving = context.Process(target=save_for_ever, args=(tmp_path, newest, write))
        saving.start()
        write.close()
        if number % 4 == 0:
            newest = read.recv()  # it gets somewhere
        time.sleep(chance.random() * 0.03)
        os.kill(saving.pid or 0, signal.SIGKILL)
        saving.join()
        with contextlib.suppress(EOFError):
            while True:
                newest = read.recv()
        read.close()
        found, problems = checkpoint.newest_valid(run)
        assert found is not None and problems == []
        assert found.step in (newest, newest + 1), "what was told to be whole, or a rename that nobody heard of"
        newest = found.step
        for file in ("model", "optimizer"):
            (stored,) = load_file(found.folder / f"{file}.safetensors").values()
            assert torch.equal(stored, torch.full((50_000,), float(newest)))
        names = [path.name for path in run.checkpoints.iterdir()]
        assert len(names) <= 3 and all(name.startswith("step-") for name in names), names
    assert newest >= KILLS // 4
