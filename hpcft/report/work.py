"""The parts of a report that tell how a run went: where the time went, its jobs, and their waits in the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hpcft.curves.figure import look
from hpcft.curves.runcurves import Place, RunCurves
from hpcft.launch.jobstatus import JobStatus
from hpcft.launch.words import clock, count, duration
from hpcft.report.account import PARTS, Account
from hpcft.report.elements import section, short_paths, table, text

Key = tuple[int, int]
"""Number and attempt of a job."""
UNKNOWN = "unknown"
COLUMNS = ("job", "Slurm id", "node", "device", "began", "waited", "lasted", "steps", "lost", "useful", "ending")
SHORT = 600.0
"""Seconds below which times are shown to a tenth of one."""


def time_section(spent: Account) -> str:
    """A bar and its numbers, which add up."""
    if not spent.total:
        return ""
    bar, rows = [], []
    for name, (title, meaning) in PARTS.items():
        if not spent.parts[name]:
            continue
        share = spent.parts[name] / spent.total
        words = f"{share:.0%}" if share >= 0.07 else ""
        style = f'style="flex-grow:{share:.5f}" title="{text(title)}: {share:.1%}"'
        bar.append(f'<span class="part-{name}" {style}>{words}</span>')
        mark = f'<i class="part-{name}"></i>{text(title)}<small>{text(meaning)}</small>'
        rows.append((mark, _seconds(spent.parts[name], spent.total), f"{share:.1%}"))
    sums = "".join(f'<td class="number">{cell}</td>' for cell in (_seconds(spent.total, spent.total), "100%"))
    whose = "GPU time" if spent.on_cards else "time"
    lead = (
        f"{spent.parts['computing'] / spent.total:.0%} of the {whose} of the jobs went into useful steps. "
        "Queue waits are not in it: a job that waits takes no card."
    )
    numbers = table(("", "time", "share"), rows, (1, 2), f"<tr><td>Together</td>{sums}</tr>")
    return section("time", f"Where the {whose} went", f'<div class="bar">{"".join(bar)}</div>', numbers, lead=lead)


def _seconds(seconds: float, beside: float) -> str:
    """`1:02:03`, or `12.3 s` beside a sum that is short."""
    return duration(seconds) if beside >= SHORT else f"{seconds:.1f} s"


class Seen(NamedTuple):
    """What the curves say of a job."""

    place: Place
    colour: str


def jobs_section(jobs: Sequence[JobStatus], curves: RunCurves, devices: Mapping[Key, str], spent: Account) -> str:
    """A strip of the jobs and the waits between them, and a row for each."""
    began = [job for job in jobs if job.wall_seconds is not None]
    if not began:
        return ""
    known = [job for job in curves.stitched.jobs if job.label in curves.places]
    seen = {
        (job.number, job.attempt): Seen(curves.places[job.label], look(index).colour) for index, job in enumerate(known)
    }
    rows = [_row(job, seen.get(key), devices.get(key, UNKNOWN), spent.jobs.get(key, {})) for job, key in _keyed(began)]
    waits = [job.wait_seconds for job in began if job.wait_seconds is not None]
    lead = f"{count(len(began), 'job')} on {count(len({job.node for job in began}), 'node')}"
    if waits:
        mean = f", {duration(sum(waits) / len(waits))} each on average" if len(waits) > 1 else ""
        lead += f"; {duration(sum(waits))} in the queue{mean}, {duration(max(waits))} at most"
    strip = _strip([(job, seen[key]) for job, key in _keyed(began) if key in seen])
    return section("jobs", "Jobs", strip, table(COLUMNS, rows, (5, 6, 7, 8, 9)), lead=f"{lead}.")


def _keyed(jobs: Sequence[JobStatus]) -> list[tuple[JobStatus, Key]]:
    return [(job, (job.number, job.attempt)) for job in jobs]


def _row(job: JobStatus, seen: Seen | None, device: str, parts: Mapping[str, float]) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    number = f"{job.number}" if job.attempt == 1 else f"{job.number}.{job.attempt}"
    useful = parts.get("computing", 0.0) / job.wall_seconds if job.wall_seconds else 0.0
    lost = job.steps_done - job.kept_steps
    why = f"<small>{text(short_paths(job.why))}</small>" if job.why else ""
    return (
        f'<i style="background:{seen.colour if seen else "transparent"}"></i>{number}',
        text(job.slurm_id or "–"),
        text(job.node or UNKNOWN),
        text(device),
        text(clock(seen.place.begins) if seen else UNKNOWN),
        UNKNOWN if job.wait_seconds is None else duration(job.wait_seconds),
        duration(job.wall_seconds),
        f"{job.first_step}–{job.last_step}" if job.kept_steps else "none",
        f"{lost}" if lost else "–",
        f"{useful:.0%}",
        f"{text(job.ending or (job.state or 'runs').lower())}{why}",
    )


def _strip(jobs: Sequence[tuple[JobStatus, Seen]]) -> str:
    """From the first job to the last ending: jobs in their colours, waits between them; nothing for one job."""
    if len(jobs) < 2:
        return ""
    parts = []
    begins = reached = jobs[0][1].place.begins
    for job, (place, colour) in jobs:
        lasted, gap = place.hours * 3600, max(0.0, place.begins - reached)
        if gap:
            words = f"{duration(gap)} without a job"
            parts.append(f'<span class="wait" style="flex-grow:{gap:.1f}" title="{words}"></span>')
        words = f"job {job.number}, {clock(place.begins)}, {duration(lasted)}"
        parts.append(f'<span style="flex-grow:{lasted:.1f};background:{colour}" title="{text(words)}"></span>')
        reached = max(reached, place.begins + lasted)
    ends = f"<span>{text(clock(begins))}</span><span>{text(clock(reached))}</span>"
    return f'<div class="strip">{"".join(parts)}</div><div class="strip-ends">{ends}</div>\n'
