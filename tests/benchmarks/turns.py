"""Sides of a comparison, each in a process of its own, that take turns.

So whatever else a shared machine does slows all alike, and none shares torch's settings or memory with another.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

Facts = dict[str, float]


class Turns:
    """In a side's process: waits for each turn, and answers with what it took."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer
        self._began: float | None = None
        self.tokens = 0
        """Without padding, of the batches of this turn."""

    def next(self) -> None:
        """End a turn and wait for the next; the first call says that everything is ready."""
        if self._began is None:
            self.say()
        else:
            self.say(seconds=time.perf_counter() - self._began, tokens=self.tokens)
        self.wait()

    def wait(self) -> None:
        """Until it is our turn; for ever gone where the benchmark is."""
        if not sys.stdin.readline():
            os._exit(1)
        self.tokens, self._began = 0, time.perf_counter()

    def say(self, **facts: float) -> None:
        """One line of answer."""
        print(json.dumps(facts), file=self._out, flush=True)


class Side:
    """In the benchmark: a process that does a turn when it is told to. Raises RuntimeError with its log if it fails."""

    def __init__(self, module: str, name: str, folder: Path) -> None:
        self.name = name
        self.turns: list[Facts] = []
        """What each turn was answered with."""
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", name, str(folder)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        self._answer()

    def turn(self) -> Facts:
        """The answer to one turn."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self.turns.append(self._answer())
        return self.turns[-1]

    def stop(self) -> None:
        """Nothing is left of it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Facts:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} failed:\n{self._log.read_text()[-3000:]}")
        answer: Facts = json.loads(line)
        return answer


def in_turns(module: str, names: Sequence[str], folder: Path, turns: int) -> dict[str, list[Facts]]:
    """The answers of each side. They start one after the other: what the first leaves in the folder, all can read."""
    with contextlib.ExitStack() as stack:
        sides = []
        for name in names:
            sides.append(Side(module, name, folder))
            stack.callback(sides[-1].stop)
        for _ in range(turns):
            for side in sides:
                side.turn()
        return {side.name: side.turns for side in sides}
