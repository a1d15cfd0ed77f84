"""`python -m tests.benchmarks curves`: a million events read, stitched and written, and a thousand that are new."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpcft.curves.events import file_name, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.scalars import Column, encode
from hpcft.curves.stitch import JobCurve
from hpcft.curves.view import View
from hpcft.curves.writer import CurveWriter
from tests.benchmarks.rows import Row

TAGS = (
    *("train/loss", "train/learning_rate", "train/gradient_norm", "train/padding_share", "train/steps_left_out"),
    *("speed/tokens_per_second", "speed/trained_tokens_per_second", "seconds/data", "seconds/compute", "train/phase"),
)
JOBS = 4
EVENTS = 1_000_000
NEW = 1000


def log(directory: Path, first: int, last: int) -> None:
    """Each tag at each step from `first` to `last`, in one event file, with a value that grows."""
    directory.mkdir(parents=True, exist_ok=True)
    steps, columns = np.arange(first, last + 1), {}
    for number, tag in enumerate(TAGS):
        places = np.arange(len(steps)) * len(TAGS) + number
        columns[tag] = Column(places, steps, 1.7e9 + steps, steps / 7 + number)
    path = directory / file_name(1)
    with path.open("ab") as file:
        if not file.tell():
            file.write(encode_frames([version_event(1.7e9)]))
        file.write(encode(columns))


def make_chain(root: Path, events: int) -> list[JobCurve]:
    """Jobs that each superseded a tenth of the one before."""
    each = events // len(TAGS) // JOBS
    jobs = []
    for number in range(1, JOBS + 1):
        resume = (number - 1) * (each - each // 10)
        jobs.append(JobCurve(f"job{number:03d}-{number}", number, 1, root / f"{number}", resume))
        log(jobs[-1].directory, resume + 1, resume + each)
    return jobs


def stitched_cold(root: Path) -> dict[str, float]:
    """Seconds and memory of the first poll over a chain, in a process of its own; and of a poll for what is new."""
    jobs = [
        JobCurve(f"job{number:03d}-{number}", number, 1, root / f"{number}", int(resume))
        for number, resume in enumerate(json.loads((root / "resumes.json").read_text()), 1)
    ]
    view = View(root / "view")
    started = time.monotonic()
    stitched = view.poll(jobs)
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    last = int(stitched.curve(TAGS[0]).steps[-1])
    polls, idle = [], []
    for turn in range(5):
        begun = last + 1 + turn * (NEW // len(TAGS))
        log(jobs[-1].directory, begun, begun + NEW // len(TAGS) - 1)
        for times in (polls, idle):
            started = time.monotonic()
            view.poll(jobs)
            times.append(time.monotonic() - started)
    return {"seconds": seconds, "memory_mb": memory, "new": float(np.median(polls)), "idle": float(np.median(idle))}


READERS = {
    "EventAccumulator": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for path in paths:
    accumulator = EventAccumulator(path, size_guidance={"scalars": 0}).Reload()
    rows += sum(len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"])
""",
    "tbparse": """
from tbparse import SummaryReader
for path in paths:
    rows += len(SummaryReader(path).scalars)
""",
}
"""Who else reads event files; they only read, and stitch nothing."""


def read_by(name: str, root: Path) -> dict[str, float]:
    """Events a second without the import, and memory; the same rows."""
    code = f"import json, resource, sys, time\npaths, rows = {[str(root / str(n)) for n in range(1, JOBS + 1)]}, 0\n"
    body = READERS[name].strip().splitlines()
    code += "\n".join([body[0], "started = time.monotonic()", *body[1:], "seconds = time.monotonic() - started"])
    code += "\nprint(json.dumps([rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"
    rows, seconds, memory = json.loads(subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.PIPE))
    assert rows >= EVENTS, rows  # those too that came while we measured ours
    return {"speed": rows / seconds, "memory_mb": memory}


def logging_a_step(folder: Path) -> float:
    """Seconds that ten scalars of a step take in the training loop."""
    writer, spent = CurveWriter(folder), []
    for step in range(1, 1001):
        started = time.perf_counter()
        for number, tag in enumerate(TAGS):
            writer.scalar(tag, step / 7 + number, step)
        spent.append(time.perf_counter() - started)
    writer.close()
    return float(np.median(spent))


def a_step() -> float:
    """Seconds of a step of at least 0.1 s, in which matrices are multiplied."""
    matrix = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    started = time.perf_counter()
    while time.perf_counter() - started < 0.1:
        matrix @ matrix
    return time.perf_counter() - started


def curve_rows(folder: Path) -> Iterator[Row]:
    """A million events: cold beside two readers, which stitch and write nothing; and what is new of them."""
    jobs = make_chain(folder, EVENTS)
    (folder / "resumes.json").write_text(json.dumps([job.resume_step for job in jobs]))
    code = "import json; from pathlib import Path; from tests.benchmarks import curves\n"
    code += f"print(json.dumps(curves.stitched_cold(Path({str(folder)!r}))))"
    own = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    speed = EVENTS / own["seconds"]
    for name in READERS:
        other = read_by(name, folder)["speed"]
        what = f"read, stitch and write a million events, beside {name}, which reads"
        yield Row(what, speed, other, "over 150,000/s", speed > 150_000, "/s")
    limit = 200.0
    yield Row("memory for it", own["memory_mb"], limit, "under 200 MB", own["memory_mb"] < limit, "MB")
    yield Row("a poll with 1,000 new events", own["new"], 0.02, "under 0.02 s", own["new"] < 0.02, "s")
    yield Row("a poll without any", own["idle"], own["new"], "under half of it", own["idle"] < own["new"] / 2, "s")
    logged, step = logging_a_step(folder / "log"), a_step()
    yield Row("logging ten scalars, beside a step of 0.1 s", logged, step, "under 1%", logged < step / 100, "s")
