"""Hands the curve of a run on to one other tracker: `python -m hpcft.train.track RUN NUMBER ATTEMPT TRACKER`.

The supervisor starts it beside the workers, and it ends when its stdin does.

A tracker cannot take a step back. So a step is handed on when a checkpoint lies behind it: no later job will make it
again. What is given is the stitched curve, and where a job was killed the next one asks the tracker what it has.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.curves.jobs import job_curves
from hpcft.curves.stitch import Stitched, Stitcher
from hpcft.disk import read_json, write_json
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir

if TYPE_CHECKING:
    from hpcft.train.trackers import Row, Session

LOOK_SECONDS = 2.0
"""Between two looks for a new checkpoint."""
SLICE = 500
"""Rows after which it is noted how far the tracker has come."""
LONGEST = 300
"""Characters of a tracker's complaint that are kept."""


def settled(run: RunDir) -> float:
    """The last step whose points no later job will change or add to: the one before the newest checkpoint, since at
    that step itself the next job may still evaluate; all, when the run is finished."""
    if run.finished:
        return math.inf
    return max(run.saved_steps(), default=0) - 1


def rows_between(stitched: Stitched, after: float, until: float) -> list[Row]:
    """The rows of the stitched curve with after < step <= until, by step."""
    from hpcft.train.trackers import Row

    values: dict[int, dict[str, float]] = {}
    times: dict[int, float] = {}
    for tag in stitched.tags:
        points = stitched.curve(tag)
        points = points[(points.steps > after) & (points.steps <= until)]
        for step, wall_time, value in zip(
            points.steps.tolist(), points.wall_times.tolist(), points.values.tolist(), strict=True
        ):
            values.setdefault(step, {})[tag] = value
            times[step] = max(wall_time, times.get(step, wall_time))
    return [Row(step, times[step], values[step]) for step in sorted(values)]


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as `section.key: value`, without whom it tells."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        elif value is not None:
            flat[prefix] = value if isinstance(value, bool | int | float | str) else str(value)

    add("", recipe.model_dump(mode="json", exclude={"notify", "track", "matrix"}))
    return flat


class Forwarder:
    """Keeps one tracker up to what is settled of a run. Nothing that the tracker does is raised."""

    def __init__(self, run: RunDir, job: JobDir, tracker: str) -> None:
        self._run, self._job, self._tracker = run, job, tracker
        self._path = run.trackers / f"{tracker}.json"
        self._state = read_json(self._path) or {"key": secrets.token_hex(4), "sent": -1}
        self._stitcher = Stitcher()
        self._session: Session | None = None
        self._given = -1.0
        self._tried = -1.0

    def forward(self) -> None:
        """Hand on what is settled and has not been; after a failure, once for each new checkpoint."""
        with contextlib.suppress(OSError):  # a shared file system that is away for now: the next look finds it
            self._forward()

    def finish(self) -> None:
        """Hand on the rest and close the tracker's run."""
        self._tried, refusal = -1.0, None
        try:
            self._forward()
        except OSError as error:
            refusal = (error.strerror or str(error)).lower()
        self._guarded(self._close)
        if refusal:
            self._complain(f"the run's records could not be read: {refusal}")

    def _forward(self) -> None:
        """Raises OSError where the run's records cannot be read."""
        until = settled(self._run)
        if until <= max(self._state["sent"], self._given, self._tried):
            return
        stitched = self._stitcher.stitch(job_curves(self._run))
        rows = rows_between(stitched, max(self._state["sent"], self._given), until)
        self._tried = until
        if rows:
            self._guarded(lambda: self._give(rows))

    def _give(self, rows: Sequence[Row]) -> None:
        if self._session is None:
            self._session = self._open()
            # What is noted is with the tracker for certain; it may have more, of a session that was killed.
            self._given = max(self._state["sent"], self._session.last_step())
        rows = [row for row in rows if row.step > self._given]
        for begin in range(0, len(rows), SLICE):
            part = rows[begin : begin + SLICE]
            self._session.send(part)
            self._given = part[-1].step
            self._note(given=part[-1].step, fault=None)

    def _open(self) -> Session:
        from accelerate import PartialState

        from hpcft.train.trackers import SESSIONS, Target

        recipe = self._run.recipe
        self._note()  # the key, before anybody has heard it
        PartialState(cpu=True)  # accelerate's trackers ask it which process they are in
        project = recipe.track.project or recipe.name
        target = Target(self._run.name, self._state["key"], project, self._run.trackers, settings(recipe))
        session = SESSIONS[self._tracker](target, fresh="id" not in self._state)
        self._note(id=session.id, project=project)
        return session

    def _close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            session.finish()
            self._note(sent=self._given, fault=None)

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except Exception as error:  # whatever it is, the run is none the worse
            self._session, self._given = None, -1.0
            words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
            self._complain(words, given=self._state["sent"])

    def _complain(self, why: str, **facts: Any) -> None:
        self._say(f"hpcft: {self._tracker} did not take the curve: {why}. `hpcft track` or the next job tries again.")
        try:
            self._note(fault=why, **facts)
        except OSError as refusal:
            self._say(f"hpcft: nor could that be noted: {(refusal.strerror or str(refusal)).lower()}")

    def _note(self, **facts: Any) -> None:
        self._state = {**self._state, **facts, "time": time.time()}
        self._path.parent.mkdir(exist_ok=True, mode=0o700)
        write_json(self._path, self._state)

    def _say(self, words: str) -> None:
        print(words, flush=True)
        try:
            with self._job.log.open("a", encoding="utf-8") as log:
                print(words, file=log)
        except OSError:
            pass  # it stands in the tracker's own log


def main(run_path: str, number: str, attempt: str, tracker: str) -> int:
    """0, when stdin has ended and the rest is handed on."""
    run = RunDir(Path(run_path))
    forwarder = Forwarder(run, run.job(int(number), int(attempt)), tracker)
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:  # it has nothing to say but its end
        forwarder.forward()
    forwarder.finish()
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # trackers leave threads behind, and what they do at exit has been done
