"""`hpcft evaluate --on-cluster`, where a job would run: `python -m hpcft.job.evaluate FOLDER RUN SPLIT WHICH`.

FOLDER, which is thrown away, holds the recipe for one node; what is found goes into RUN.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hpcft.job.processes import NodeProcesses
from hpcft.job.workers import find_meeting
from hpcft.rundir import RunDir

LOOK = 0.1
"""Seconds between two looks at the processes."""


class Ranks(NodeProcesses):
    """The processes that share the rows."""

    module = "hpcft.train.assess"

    def __init__(self, own: RunDir, words: Sequence[str], scratch: Path) -> None:
        super().__init__(own, own.job(1), own.recipe, scratch, internet=False)
        self._arguments = [*words, str(scratch)]


def main(folder: str, *words: str) -> int:
    """The exit code of the first process that failed, else 0."""
    own, scratch = RunDir(Path(folder)), Path(tempfile.mkdtemp(prefix="hpcft-"))
    ranks = Ranks(own, words, scratch)
    try:
        ranks.start(os.environ, find_meeting(1), sys.stdout.buffer)
        while len(ended := ranks.ended()) < own.recipe.processes and not any(ended.values()):
            time.sleep(LOOK)
        return next((code for code in ended.values() if code), 0)
    finally:
        ranks.kill()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)
