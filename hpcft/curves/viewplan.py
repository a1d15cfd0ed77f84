"""What TensorBoard shall show of a run: each job in its colour, `stitched`, the whole curve, and what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcft.curves.points import Points, make_points
from hpcft.curves.raw import Place, Png, Showable, Text, fingerprint, raw_key
from hpcft.curves.rewind import Curve, Part
from hpcft.curves.stitch import Segment, Stitched

STITCHED = "stitched"
"""The name of the TensorBoard run that holds the whole curve."""
PICTURES = "evaluation"
"""The name of the TensorBoard run that holds pictures."""
CHAIN = "chain"
"""The name of the TensorBoard run that holds the table of jobs."""


@dataclass
class Run:
    """What one TensorBoard run shows."""

    curves: dict[str, Curve] = field(default_factory=dict)
    """By tag; of what is no scalar, by `raw_key`, with fingerprints as values."""
    raw: dict[str, dict[tuple[int, float], Showable]] = field(default_factory=dict)
    """What the fingerprints stand for, by key, step and fingerprint."""


@dataclass(frozen=True)
class Picture:
    """A PNG of the run's, and where TensorBoard shows it."""

    tag: str
    step: int
    path: Path


def plan_runs(stitched: Stitched) -> dict[str, Run]:
    """The runs by name: every job that has something to show, in order, then `stitched`.

    A job's curve begins with a bridge, the last point of the jobs before, so that the line has no gap. It
    carries the wall time of the job's own first point: on the relative axis a job must not begin with the
    time it queued. `stitched` has a clock that stands still between two jobs, so that its relative axis has the time
    in which the run went on.
    """
    runs = {name: Run() for name in (*(job.label for job in stitched.jobs), STITCHED)}
    shifts = waits(stitched)
    for tag in stitched.tags:
        before: Segment | None = None
        for segment in stitched.kept(tag):
            points, part = segment.points, Part(segment.points, shifts[segment.job.label])
            parts: Curve = (Part(points),)
            if before is not None:
                last = before.points[-1:]
                parts = (Part(Points(last.steps, points.wall_times[:1], last.values)), *parts)
            runs[segment.job.label].curves[tag] = parts
            runs[STITCHED].curves[tag] = (*runs[STITCHED].curves.get(tag, ()), part)
            before = segment
    for (place, tag), segments in stitched.raw.items():
        for raw in segments:
            own = place is Place.JOB
            run, shift = runs[raw.job.label if own else STITCHED], 0.0 if own else shifts[raw.job.label]
            key = raw_key(place, tag)
            run.curves[key] = (*run.curves.get(key, ()), Part(raw.points, shift))
            run.raw.setdefault(key, {}).update(raw.events)
    return {name: run for name, run in runs.items() if run.curves}


def waits(stitched: Stitched) -> dict[str, float]:
    """Seconds by which each job is shown earlier in `stitched`, by label: from the last point of the job before it to
    its own first, with all that is before those."""
    found: dict[str, float] = {}
    ends, shift = None, 0.0
    segments = [segment for tag in stitched.tags for segment in stitched.kept(tag)]
    for job in stitched.jobs:
        own = [segment.points.wall_times for segment in segments if segment.job.label == job.label]
        if own:
            if ends is not None:
                shift += min(float(times[0]) for times in own) - ends
            ends = max(float(times[-1]) for times in own)
        found[job.label] = shift
    return found


def plan_pictures(pictures: Sequence[Picture], known: dict[Path, tuple[tuple[float, int], int]]) -> Run:
    """The run that shows these PNGs; `known` keeps their fingerprints until they are drawn anew."""
    run, rows = Run(), dict[str, list[tuple[int, float, float]]]()
    for picture in pictures:
        try:
            status = picture.path.stat()
            drawn = (status.st_mtime, status.st_size)
            if known.get(picture.path, ((0.0, 0), 0))[0] != drawn:
                known[picture.path] = (drawn, fingerprint(Png(picture.tag, picture.path).value()))
        except OSError:
            continue  # of a run that is being removed
        key, print_ = raw_key(Place.STITCHED, picture.tag), float(known[picture.path][1])
        rows.setdefault(key, []).append((picture.step, status.st_mtime, print_))
        run.raw.setdefault(key, {})[picture.step, print_] = Png(picture.tag, picture.path)
    run.curves = {key: (Part(make_points(of_tag)),) for key, of_tag in rows.items()}
    return run


def plan_chain(words: str, stitched: Stitched, runs: Mapping[str, Run]) -> Run:
    """The run that shows the table of jobs, always at step 0, so that a new one takes the old one's place."""
    curves = runs[STITCHED].curves.values() if STITCHED in runs else ()
    begun = min((float(part.shown().wall_times[0]) for curve in curves for part in curve[:1]), default=0.0)
    text = Text("jobs", words)
    key, print_ = raw_key(Place.JOB, text.tag), float(fingerprint(text.value()))
    points = Points(np.array([0]), np.array([begun]), np.array([print_]))
    return Run({key: (Part(points),)}, {key: {(0, print_): text}})
