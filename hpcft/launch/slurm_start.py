"""When a job would start, by Slurm's own reckoning: `sbatch --test-only`, which queues nothing."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from hpcft.launch.slurm import own_words, scrubbed_environment

PATIENCE = 10
"""Seconds after which nobody waits for an estimate any more."""
STARTS = re.compile(r"Job \d+ to start at (\S+)T(\S+)(?: using .*? on nodes (\S+))?")
PASSING = re.compile(
    r"busy|not available|contact|timed out|communication|connection|temporarily|standby|configuration source",
    re.IGNORECASE,
)
"""Words of an answer that does not condemn the job: the controller is away, or nodes are, and sbatch would queue it."""


@dataclass(frozen=True)
class Start:
    """What Slurm says of a script."""

    words: str = "Slurm does not say"
    """`2026-11-23 04:05:06, on gpu001`, or that it does not say."""
    refusal: str = ""
    """Why sbatch would refuse it, in its own words."""


def estimated_start(script: str) -> Start:
    """When the job of this script would start if it were sent now, or that it would be refused."""
    with scrubbed_environment():
        try:
            done = subprocess.run(
                ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired):
            return Start()
    if found := STARTS.search(done.stderr):
        day, clock, nodes = found.groups()
        return Start(f"{day} {clock}" + (f", on {nodes}" if nodes else ""))
    words = own_words("sbatch", done.stderr)
    if not done.returncode or not words:
        return Start()
    if PASSING.search(words):
        return Start(f"Slurm does not say: {words}")
    return Start(refusal=words)
