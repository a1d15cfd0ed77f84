"""What a save costs: how long training waits for it, and how long until it is on disk."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from hpcft.train.blocks import write_files
from hpcft.train.checkpoint import model_tensors
from hpcft.train.tensorfile import as_bytes
from hpcft.train.training import Training

WITH_MOMENTS = 3
"""Of the bytes of the weights: AdamW's two moments are as large."""
SLOW_DISK = 2e8
"""Bytes a second, for a disk that could not be measured."""
SNAPSHOT_PACE = 2e9
"""Bytes a second, slower than any copy into pinned memory: until one has been measured."""
PROBE_CAUTION = 2.0
"""A small file is written faster than a large one."""
PROBE_BYTES = 128 << 20
"""Written once at the start to learn how long a save will take."""


@dataclass(frozen=True)
class Costs:
    """What a save takes."""

    stall: float
    """Seconds for which training waits."""
    seconds: float
    """Until it is on disk."""


def measure_save(training: Training) -> Costs:
    """What a save will take: as much as the last one, else by its size and a small file on the same disk."""
    said = training.progress.facts
    if "save_stall_seconds" in said:  # of the phase before, in this job
        return Costs(float(said["save_stall_seconds"]), float(said["save_seconds"]))
    for job in reversed(training.run.jobs()):
        ended = job.ended or {}
        if (seconds := ended.get("save_seconds")) and (stall := ended.get("save_stall_seconds")):
            return Costs(float(stall), float(seconds))
    tensors = model_tensors(training.model).values()
    size = WITH_MOMENTS * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    training.run.checkpoints.mkdir(exist_ok=True, mode=0o700)
    probe = training.run.checkpoints / ".probe"
    probe.unlink(missing_ok=True)
    block = as_bytes(os.urandom(1 << 20))
    blocks = max(1, min(PROBE_BYTES, size) >> 20)
    started = time.monotonic()
    try:
        write_files(probe.parent, {probe.name: [block] * blocks})
        seconds = (time.monotonic() - started) * float(size / (blocks << 20))
    except OSError as refusal:  # no reason to end a job which may train until there is room again
        reason = (refusal.strerror or str(refusal)).lower()
        print(f"hpcft: how fast the disk writes is not known: {reason}", flush=True)
        seconds = size / SLOW_DISK
    finally:
        probe.unlink(missing_ok=True)
    return Costs(size / SNAPSHOT_PACE, PROBE_CAUTION * seconds)
