"""A chain of jobs on a real Slurm, seen live on TensorBoard's page: one line whose colours are the jobs."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib.figure
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.curves.server import start_tensorboard
from hpcft.rundir import RunDir
from tests.curves.page import Page, assert_one_curve, browser, needs_browser
from tests.slurm.lab import Lab
from tests.slurm.pace import slow_env
from tests.slurm.processes import eventually
from tests.slurm.runs import HPCFT, Site, is_training, make_site, processes_of, queue

BUILD = Path(__file__).parents[2] / "build/tensorboard"
STEPS = 12
"""That each job makes before it is cancelled, at three a second."""


@pytest.fixture(scope="module")
def site(slurm: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A run that trains, and goes on for ever."""
    folder = tmp_path_factory.mktemp("tensorboard")
    values = {"env": str(slow_env(folder / "env")), "evaluate": {"every": 4}, "train": {"save_every": 4}}
    site = make_site(folder, slurm, values)
    site.submit()
    yield site
    site.hpcft("cancel", "tiny")


@pytest.fixture(scope="module")
def minute(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """One in a job of a minute, begun before the first test, since that takes its minute."""
    return Command(site, tmp_path_factory.mktemp("minute") / "tmp", "--on-node", "--walltime", "0:01:00")


class Command:
    """`hpcft tensorboard …` with a place of its own for temporary files."""

    def __init__(self, site: Site, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            [HPCFT, "tensorboard", *arguments],
            env=site.environment(TMPDIR=str(folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def __getitem__(self, key: str) -> str:
        """What stands behind this word in what it prints until it serves."""
        assert self.process.stdout
        while not self.lines or not self.lines[-1].startswith("Ctrl-C"):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            self.lines.append(line)
        return next(line.removeprefix(key).strip() for line in self.lines if line.startswith(key))

    def end(self, number: signal.Signals) -> int:
        """Its exit code, after this signal."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


def next_job(site: Site) -> None:
    """Cancel the job that runs, once it has trained; the next one trains then."""
    run = site.run()
    job = [job for job in run.jobs() if job.started][-1]
    site.wait(f"job {job.number} to train", lambda: is_training(job, STEPS), 90)
    site.lab.run("scancel", job.slurm_id or "")
    site.wait("the next one to train", lambda: is_training(run.job(job.number + 1), STEPS // 2), 90)


@pytest.mark.parametrize("_", [pytest.param(None, marks=needs_browser)])
@pytest.mark.usefixtures("minute")
def test_the_page_follows_the_chain_live(site: Site, tmp_path: Path, _: None) -> None:
    run = site.run()
    site.wait("job 1 to train", lambda: is_training(run.job(1), 3), 90)
    draw_a_picture(run)
    served = Command(site, tmp_path / "served")
    by_job, stitched = served["by job:"], served["stitched:"]
    (views,) = (tmp_path / "served").glob("hpcft-scratch-*/views")
    python_loader = start_tensorboard(views, extra=["--load_fast", "false"])
    try:
        with browser(tmp_path / "profile") as driver:
            pages = [Page(driver, link) for link in (by_job, python_loader.by_job)]
            for count in (1, 2, 3):
                if count > 1:
                    next_job(site)
                for page in pages:
                    assert_shown(page, run, count)
            pages[0].save(BUILD / "by-job.png")
            assert {"scalars", "images"} <= with_data(views / "tiny") == pages[0].tabs() == pages[1].tabs()
            whole = pages[0]
            whole.open(stitched)
            last = (run.job(3).heartbeat or {})["last_step"]
            lines = whole.wait_for_lines("train/loss", lambda lines: any(len(line) >= last for line in lines.values()))
            assert list(lines) == ["tiny/stitched"]
            assert_one_curve(lines)
            whole.save(BUILD / "stitched.png")
    finally:
        python_loader.stop()
        assert served.end(signal.SIGINT) == 0
    assert not list((tmp_path / "served").iterdir())


def assert_shown(page: Page, run: RunDir, count: int) -> None:
    """A line a job, in colours that change from job to job, joined and going forward."""
    begun = [job for job in run.jobs() if job.started]
    names = [f"tiny/{job.label}" for job in begun]
    assert len(names) == count
    resumed = [int((job.resumed or {})["step"]) for job in begun]
    steps = [after - before for before, after in pairwise(resumed)]  # of the jobs that have ended
    for tag in ("train/loss", "validation/loss"):
        lines = page.wait_for_lines(tag, lambda lines: list(lines) == names)
        assert_one_curve(lines)
        if tag == "train/loss":  # one point a step, and one more that joins a line to the one before
            lengths = [len(line) for line in lines.values()]
            assert lengths[:-1] == [own + (number > 0) for number, own in enumerate(steps)]
            assert lengths[-1] > 1
    colours = page.colours()
    assert list(colours) == names and len(set(colours.values())) == count


def with_data(view: Path) -> set[str]:
    """Plugins of TensorBoard for which there are data in a view."""
    found = set()
    for run in view.iterdir():
        if run.is_dir():
            accumulator = EventAccumulator(str(run)).Reload()
            found |= {kind for kind in ("scalars", "images") if accumulator.Tags()[kind]}
            metadata = [accumulator.SummaryMetadata(tag) for tag in accumulator.Tags()["tensors"]]
            found |= {each.plugin_data.plugin_name for each in metadata}
    return found


def draw_a_picture(run: RunDir) -> None:
    run.evaluation.mkdir(exist_ok=True)
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2])
    figure.savefig(run.evaluation / "test.png")


@pytest.mark.server
def test_in_a_job_of_its_own_it_ends_with_the_command_or_with_its_walltime(
    site: Site, minute: Command, tmp_path: Path
) -> None:
    for number, code in ((signal.SIGINT, 0), (signal.SIGKILL, -9)):
        command = Command(site, tmp_path / number.name, "tiny", "--on-node")
        job, _, node = command["job "].partition(",")[0].partition(" on ")
        assert queue(site.lab)[job][0] == "RUNNING" and node in site.lab.node_names
        tunnel = command["from your own computer first:"].split()
        assert tunnel[:3] == ["ssh", "-N", "-L"] and tunnel[4] == "-J" and tunnel[-1].endswith(f"@{node}")
        assert b"<title>TensorBoard</title>" in urllib.request.urlopen(command["by job:"], timeout=20).read()
        assert command.end(number) == code
        assert eventually(lambda job=job: job not in queue(site.lab), seconds=20)  # type: ignore[misc]
        assert eventually(lambda job=job: not processes_of(site.lab, job), seconds=20)  # type: ignore[misc]
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(command["by job:"], timeout=20)
        assert not list(command.folder.iterdir()) or number == signal.SIGKILL
    out, err = minute.process.communicate(timeout=90)
    assert (minute.process.returncode, err) == (0, "")
    assert out.endswith("\nThe walltime of the job is over. Call it again, with a longer --walltime.\n")
    assert not list(minute.folder.iterdir())
