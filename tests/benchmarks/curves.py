"""`python -m tests.benchmarks curves`: a million events read, stitched and written, and a thousand that are new."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpcft.curves.events import file_name, version_event
from hpcft.curves.frames import encode_frames
from hpcft.curves.scalars import Column, encode
from hpcft.curves.stitch import JobCurve
from hpcft.curves.view import View
from hpcft.curves.writer import CurveWriter

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
    """Seconds without the import, and memory; the same rows."""
    code = f"import json, resource, sys, time\npaths, rows = {[str(root / str(n)) for n in range(1, JOBS + 1)]}, 0\n"
    body = READERS[name].strip().splitlines()
    code += "\n".join([body[0], "started = time.monotonic()", *body[1:], "seconds = time.monotonic() - started"])
    code += "\nprint(json.dumps([rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"
    rows, seconds, memory = json.loads(subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.PIPE))
    assert rows == EVENTS, rows
    return {"seconds": seconds, "memory_mb": memory}


def logging_share() -> dict[str, float]:
    """What logging ten scalars in every step takes of a step, with a step of 50 ms that computes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        writer = CurveWriter(Path(folder))
        spent = 0.0
        for step in range(1, 2001):
            started = time.perf_counter()
            for number, tag in enumerate(TAGS):
                writer.scalar(tag, step / 7 + number, step)
            spent += time.perf_counter() - started
        writer.close()
    return {"seconds_a_step": spent / 2000}


def main() -> dict[str, float]:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jobs = make_chain(root, EVENTS)
        (root / "resumes.json").write_text(json.dumps([job.resume_step for job in jobs]))
        found: dict[str, float] = {}
        for name in READERS:
            other = read_by(name, root)
            found |= {f"{name} events/s": EVENTS / other["seconds"], f"{name} MB": other["memory_mb"]}
        code = "import json, sys; from pathlib import Path; from tests.benchmarks import curves\n"
        code += f"print(json.dumps(curves.stitched_cold(Path({str(root)!r}))))"
        own = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    found |= {
        "hpcft events/s": EVENTS / own["seconds"],
        "hpcft MB": own["memory_mb"],
        "1,000 new events, ms": 1000 * own["new"],
        "nothing new, ms": 1000 * own["idle"],
        "logging a step, ms": 1000 * logging_share()["seconds_a_step"],
    }
    return found


if __name__ == "__main__":
    print(json.dumps(main(), indent=1))
