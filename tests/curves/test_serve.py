"""`hpcft tensorboard` while it serves: what comes, what goes, what goes wrong, and how it ends."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcft.curves import serve as serve_module
from hpcft.curves.serve import Views, runs_in
from hpcft.disk import write_json
from hpcft.rundir import RunDir
from hpcft.scratch import scratch_folder
from tests.curves.chains import add_points
from tests.slurm.processes import eventually


def make_run(runs: Path, name: str, *last_steps: int) -> RunDir:
    """A run whose jobs ended at these steps."""
    run, first = RunDir(runs / name), 0
    run.path.mkdir(parents=True, exist_ok=True)
    write_json(run.path / "recipe.json", {})
    for number, last in enumerate(last_steps, 1):
        job = run.job(number)
        job.path.mkdir(parents=True, exist_ok=True)
        write_json(job.path / "submitted.json", {"slurm_id": f"47{number:02d}"})
        write_json(job.path / "resumed.json", {"step": first})
        add_points(job.curve, "train/loss", list(range(first + 1, last + 1)), number)
        first = last
    return run


# --- the views ---


@pytest.fixture
def views(tmp_path: Path) -> Views:
    make_run(tmp_path / "runs", "one", 10)
    return Views(tmp_path / "views", runs_in(tmp_path / "runs", []))


def test_a_run_that_comes_is_shown_and_one_that_goes_is_shown_no_longer(views: Views, tmp_path: Path) -> None:
    assert views.poll() == []
    make_run(tmp_path / "runs", "two", 10, 20)
    assert views.poll() == []
    there = sorted(str(path.parent.relative_to(tmp_path / "views")) for path in (tmp_path / "views").rglob("*.hpcft"))
    one, two = ["chain", "job001-4701", "stitched"], ["chain", "job001-4701", "job002-4702", "stitched"]
    assert there == [*(f"one/{name}" for name in one), *(f"two/{name}" for name in two)]
    shutil.rmtree(tmp_path / "runs/one")
    assert views.poll() == ["one: is gone from its folder, and from view."]
    assert [path.name for path in (tmp_path / "views").iterdir()] == ["two"]
    assert views.poll() == []


def test_a_run_of_the_name_of_one_that_is_gone_waits_until_tensorboard_has_forgotten_it(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "SECONDS_AWAY", 0.3)
    views.poll()
    shutil.rmtree(tmp_path / "runs/one")
    views.poll()
    make_run(tmp_path / "runs", "one", 5)
    views.poll()
    assert not (tmp_path / "views/one").exists()
    time.sleep(0.3)
    views.poll()
    assert (tmp_path / "views/one/stitched").exists()


def test_runs_that_are_named_are_the_only_ones(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / "runs", name, 10)
    find = runs_in(tmp_path / "runs", ["two"])
    assert list(find()) == ["two"]
    shutil.rmtree(tmp_path / "runs/two")
    assert list(find()) == []


def test_a_folder_of_runs_that_vanishes_is_said_once_and_all_stays_in_view(views: Views, tmp_path: Path) -> None:
    views.poll()
    (tmp_path / "runs").rename(tmp_path / "away")
    runs = tmp_path / "runs"
    assert views.poll() == [f"{runs}: cannot be read: no such file or directory. What it had stays in view."]
    assert views.poll() == []
    assert (tmp_path / "views/one/stitched").exists()
    (tmp_path / "away").rename(runs)
    assert views.poll() == [f"{runs}: all is well again."]


def test_a_record_that_cannot_be_read_is_said_once_and_the_other_runs_go_on(views: Views, tmp_path: Path) -> None:
    record = make_run(tmp_path / "runs", "two", 10).job(1).path / "resumed.json"
    whole = record.read_bytes()
    record.write_bytes(b"\0" * len(whole))  # as some file systems show what is under way
    (said,) = views.poll()
    assert said.startswith("two: cannot be read: ") and said.endswith(" What it had stays in view.")
    assert views.poll() == [] and (tmp_path / "views/one/stitched").exists()
    record.write_bytes(whole)
    assert views.poll() == ["two: all is well again."] and (tmp_path / "views/two/stitched").exists()


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """In this block the kernel refuses what would make a file longer than that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_said_once_and_made_good_when_it_does(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcft.curves.view.SECONDS_AWAY", 0)
    with no_file_above(100):
        what = "the view cannot be written: file too large. Once there is room, it makes good what is missing."
        assert views.poll() == [f"{tmp_path / 'views'}: {what}"]
        assert views.poll() == []
    assert views.poll() == [f"{tmp_path / 'views'}: all is well again."]
    assert (tmp_path / "views/one/stitched").exists()


# --- the command ---


class Served:
    """An `hpcft tensorboard`, with a place of its own for what it leaves."""

    def __init__(self, folder: Path, runs: Path, *arguments: str) -> None:
        self.temporary = folder
        folder.mkdir()
        command = [sys.executable, "-m", "hpcft.cli", "tensorboard", "--runs", str(runs), *arguments]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []

    def links(self) -> dict[str, str]:
        """What it prints once it serves, by what stands before the colon."""
        assert self.process.stdout
        while not self.said or not self.said[-1].startswith("Ctrl-C"):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            self.said.append(line)
        return {key: rest.strip() for key, _, rest in (line.partition(":") for line in self.said) if rest}

    def children(self) -> list[int]:
        """TensorBoard and its data server."""
        mark = f"--logdir={self.temporary}".encode(), f"TMPDIR={self.temporary}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if path.name != str(self.process.pid) and any(
                    text in (path / name).read_bytes() for name in ("environ", "cmdline") for text in mark
                ):
                    found.append(int(path.name))
        return found

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]


def answers(link: str) -> bool:
    try:
        with urllib.request.urlopen(link, timeout=20) as page:
            return b"<title>TensorBoard</title>" in page.read()
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts the command on a folder with one run; what a test leaves is killed."""
    make_run(tmp_path / "runs", "one", 10)
    all_of_them: list[Served] = []

    def begin(*arguments: str) -> Served:
        all_of_them.append(Served(tmp_path / f"tmp{len(all_of_them)}", tmp_path / "runs", *arguments))
        return all_of_them[-1]

    yield begin
    for served in all_of_them:
        served.process.kill()
        served.process.communicate()


@pytest.mark.server
@pytest.mark.slow
def test_several_side_by_side_end_by_any_signal_and_leave_nothing(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    side_by_side = {number: serve("one") for number in numbers}
    for number, served in side_by_side.items():
        links = served.links()
        assert answers(links["by job"]) and answers(links["stitched"])
        assert links["from your own computer first"].startswith("ssh -N -L ")
        assert len(served.children()) == 2, "TensorBoard and its data server"
        served.process.send_signal(number)
        assert served.process.wait(20) == numbers[number]
        assert eventually(lambda served=served: not served.children(), seconds=5)  # type: ignore[misc]
        assert not answers(links["by job"])
        assert bool(served.left()) == (number == signal.SIGKILL)
    killed = side_by_side[signal.SIGKILL]
    monkeypatch.setattr("tempfile.tempdir", str(killed.temporary))
    with scratch_folder():  # as the next one does
        assert len(killed.left()) == 1
    assert not killed.left()


@pytest.mark.server
@pytest.mark.slow
def test_a_tensorboard_that_dies_is_said_in_one_line(serve: Callable[..., Served]) -> None:
    served = serve()
    served.links()
    (board,) = (pid for pid in served.children() if b"board.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(board, signal.SIGKILL)
    _, err = served.process.communicate(timeout=20)
    assert served.process.returncode == 2
    assert err == "hpcft: tensorboard: TensorBoard was ended by SIGKILL: (it said nothing)\n"
    assert not served.left() and eventually(lambda: not served.children(), seconds=5)
