"""Curves as one page of HTML that needs nothing else: tags to choose, values to point at, no network."""

from __future__ import annotations

import contextlib
import html
import json
import math
import string
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcft import __version__
from hpcft.curves.axis import Axis, thin
from hpcft.curves.figure import Look, chosen, look
from hpcft.curves.runcurves import RunCurves
from hpcft.curves.stitch import JobCurve, Segment
from hpcft.disk import write_whole

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("scales.js", "chart.js", "curves.js")
PIXELS = 1600
"""Columns for which a curve is thinned before it is put in the page: half as many again as a page is wide."""


def write_curves(
    runs: Sequence[RunCurves], out: Path, title: str, tags: Sequence[str] = (), axis: Axis = "step"
) -> None:
    """Writes the page of some runs to `out`, whole or not at all, and makes its folder.

    `tags` are those that show at first, without them the losses. Raises ValueError for a tag that is not there, and
    where no run has logged a loss; OSError if it cannot write.
    """
    count = f"{len(runs)} runs" if len(runs) > 1 else "curves of the whole chain, a colour a job"
    body = f'<h1>{html.escape(title)}</h1>\n<p class="lead">{count}</p>\n<div id="figure"></div>'
    write_page(out, title, body, curves_data(runs, tags, axis))


def write_page(out: Path, title: str, body: str, data: dict[str, Any] | None, style: str = "") -> None:
    """Writes a page with this body, in whose element `figure` the curves of `data` are drawn, if there are any; `style`
    is CSS beside that of the curves."""
    with contextlib.suppress(FileExistsError):  # if it is a file, that is said when we write there
        out.parent.mkdir(parents=True)
    template = string.Template((STATIC / "page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=html.escape(title),
        generator=f"hpcft {__version__}",
        style=(STATIC / "curves.css").read_text(encoding="utf-8") + style,
        body=body,
        # No text of a run can end the element that it stands in.
        data=json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script="\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS if data),
    )
    write_whole(out, text.encode(), durable=False)


def curves_data(runs: Sequence[RunCurves], tags: Sequence[str] = (), axis: Axis = "step") -> dict[str, Any]:
    """All that the script draws, as plain values; raises as `write_curves` does."""
    known = sorted({tag for run in runs for tag in run.stitched.tags})
    first = chosen(tags, known)
    began = min((place.begins for run in runs for place in run.places.values()), default=0.0)
    zone = time.localtime(began)
    return {
        "axis": axis,
        "tags": sorted(known, key=lambda tag: (not tag.endswith("/loss"), tag)),
        "chosen": first,
        "zone": zone.tm_gmtoff,
        "zone_name": zone.tm_zone,
        "runs": [_run(run, look(index)) for index, run in enumerate(runs)],
    }


def _run(run: RunCurves, style: Look) -> dict[str, Any]:
    jobs = [job for job in run.stitched.jobs if job.label in run.places]
    number = {job.label: index for index, job in enumerate(jobs)}
    words = f"best on disk: {run.best.loss:.4g} at step {run.best.step:,} ({run.best.where})" if run.best else ""
    return {
        "name": run.name,
        "look": style._asdict(),
        "jobs": [_job(run, job, look(index)) for index, job in enumerate(jobs)],
        "phases": [phase._asdict() for phase in run.phases],
        "best": {**run.best._asdict(), "words": words} if run.best else None,
        "lines": {tag: list(_lines(run, tag, number)) for tag in run.stitched.tags},
    }


def _job(run: RunCurves, job: JobCurve, style: Look) -> dict[str, Any]:
    place = run.places[job.label]
    return {
        "label": job.label,
        "number": job.number,
        "words": run.words(job),
        "kept": run.steps_kept(job) is not None,
        "resume": job.resume_step or 0,
        "begins": round(place.begins, 1),
        "before": round(place.hours_before, 6),
        "hours": round(place.hours, 6),
        "look": style._asdict(),
    }


def _lines(run: RunCurves, tag: str, number: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The points of a tag, job by job: what survives and what was trained again."""
    stitched = run.stitched
    parts = [(True, part) for part in stitched.kept(tag)] + [(False, part) for part in stitched.superseded(tag)]
    if not parts:
        return
    first = min(int(part.points.steps[0]) for _, part in parts)
    last = max(int(part.points.steps[-1]) for _, part in parts)
    for kept, part in parts:
        yield {"job": number[part.job.label], "kept": kept, **_points(run, part, first, last)}


def _points(run: RunCurves, part: Segment, first: int, last: int) -> dict[str, list[Any]]:
    """Steps, seconds since the job began, and values; what is no number is a word, since JSON has none for it."""
    few = part.points[thin(part.points, part.points.steps.astype(float), first, last, PIXELS)]
    begins = run.places[part.job.label].begins
    return {
        "steps": few.steps.tolist(),
        "times": [round(seconds, 1) for seconds in (few.wall_times - begins).tolist()],
        "values": [_value(value) for value in few.values.tolist()],
    }


def _value(value: float) -> float | str:
    """As many digits as a 32-bit float has."""
    if math.isfinite(value):
        return float(f"{value:.8g}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
