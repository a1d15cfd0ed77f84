"""Writers and stitchers that are killed at any moment: after every poll the view is what a cold rebuild would be."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcft.curves import view as view_module
from hpcft.curves.events import file_name
from hpcft.curves.rewind import joined
from hpcft.curves.shown import read_shown
from hpcft.curves.stitch import JobCurve
from hpcft.curves.view import View
from tests.curves.chains import job_curve, log_job
from tests.curves.victims import follow, full_then_free, poll_until_back, write

pytestmark = pytest.mark.slow
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.curves.victims"])
ROOT = Path(__file__).parents[2]
KILLS, CHAIN = 200, 10
Shown = dict[str, dict[str, tuple[bytes, bytes, bytes]]]


def shown(view: Path) -> Shown:
    """What readers see of every run: steps, wall times and values, bit by bit."""
    found: Shown = {}
    for path in (path for path in view.iterdir() if path.is_dir()):
        read = read_shown(path)
        assert read is not None, path
        for tag, curve in read.curves.items():
            points = joined(curve)
            columns = points.steps.tobytes(), points.wall_times.tobytes(), points.values.tobytes()
            found.setdefault(path.name, {})[tag] = columns
    return found


@pytest.fixture(scope="module", autouse=True)
def processes_that_start_at_once() -> Iterator[None]:
    """The server that forks them has imported everything; it finds it as python does that starts anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        PROCESSES.Process(target=print).start()
        yield


def killed_after(seconds: float, *works: tuple[Callable[..., None], tuple[object, ...]]) -> None:
    """Processes that do this are killed so long after all of them are at it."""
    running = []
    for target, arguments in works:
        at_it, told = PROCESSES.Pipe(duplex=False)
        running.append(PROCESSES.Process(target=target, args=(told, *arguments)))
        running[-1].start()
        told.close()
        assert at_it.recv() is None
    time.sleep(seconds)
    for process in running:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
    for process in running:
        process.join()
        assert process.exitcode == -signal.SIGKILL


def disturb(job: JobCurve, chance: random.Random) -> bytes | None:
    """Do to a file what file systems do for a while, or people; gives the true bytes, None if it is left alone."""
    path = job.directory / file_name(1)
    if chance.random() > 0.4 or not path.exists() or path.stat().st_size < 300:
        return None
    true = path.read_bytes()
    at = chance.randrange(len(true))
    kind = chance.choice(("zeros", "shorter", "gone", "another"))
    if kind == "zeros":  # as another node's cache shows them
        path.write_bytes(true[:at] + bytes(min(100, len(true) - at)) + true[at + 100 :])
    elif kind == "shorter":
        os.truncate(path, at)
    elif kind == "gone":
        path.unlink()
    else:
        path.unlink()
        path.write_bytes(true[:at])  # a new file of the same name
    return true


@pytest.mark.parametrize("seed", range(KILLS // CHAIN))
def test_after_every_kill_the_view_is_that_of_a_cold_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(view_module, "SECONDS_AWAY", 0)
    chance = random.Random(seed)
    jobs: list[JobCurve] = []
    live = tmp_path / "live"
    reached = 0
    for number in range(1, CHAIN + 1):
        jobs.append(job_curve(tmp_path, number, chance.randint(reached // 2, reached)))
        works: list[tuple[Callable[..., None], tuple[object, ...]]] = [(write, (jobs[-1], 1000 * seed + number))]
        if chance.random() < 0.5:
            works.append((follow, (live, jobs)))
        killed_after(chance.uniform(0.0, 0.06), *works)
        view = View(live)
        if chance.random() < 0.1:
            shutil.rmtree(live / "stitched", ignore_errors=True)
        for true in (disturb(jobs[-1], chance), None):
            poll_until_back(view, jobs)
            cold = tmp_path / f"cold-{number}-{true is None}"
            stitched = View(cold).poll(jobs)
            assert shown(live) == shown(cold)
            if true is None:
                break
            (jobs[-1].directory / file_name(1)).write_bytes(true)
        reached = max([0, *(int(stitched.curve(tag).steps[-1]) for tag in stitched.tags)])
        del view
    assert reached > CHAIN


@pytest.mark.parametrize("size", [0, 10, 1000, 3000])
def test_a_view_whose_disk_was_full_is_whole_afterwards(tmp_path: Path, size: int) -> None:
    jobs = [job_curve(tmp_path, 1, 0), job_curve(tmp_path, 2, 100)]
    log_job(jobs[0], 150)
    if size:
        View(tmp_path / "live").poll(jobs)
    log_job(jobs[1], 200)
    process = PROCESSES.Process(target=full_then_free, args=(tmp_path / "live", jobs, size))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    View(tmp_path / "cold").poll(jobs)
    assert shown(tmp_path / "live") == shown(tmp_path / "cold")
    assert not [path for path in (tmp_path / "live").rglob("events*") if not path.stat().st_size]
