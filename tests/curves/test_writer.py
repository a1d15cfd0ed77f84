"""The training loop's writer: all three readers of TensorBoard see its points, and no disk can stop it."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.curves import writer as writer_module
from hpcft.curves.reader import read_points
from hpcft.curves.writer import CurveWriter


def test_points_come_back_as_32_bit_floats_with_step_and_time(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path / "curve")
    writer.scalar("train/loss", 0.1, 7, wall_time=1234.5)
    writer.scalar("train/loss", float("nan"), 2**40, wall_time=1235.5)
    writer.scalar("train/loss", float("inf"), 2**40 + 1, wall_time=1236.5)
    writer.close()
    points = read_points(tmp_path / "curve").curves["train/loss"]
    assert points.steps.tolist() == [7, 2**40, 2**40 + 1]
    assert points.wall_times.tolist() == [1234.5, 1235.5, 1236.5]
    assert points.values.tolist()[0] == float(np.float32(0.1))
    assert np.isnan(points.values[1])
    assert np.isposinf(points.values[2])


def test_a_stock_reader_sees_scalars(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path)
    for step in range(3):
        writer.scalar("train/loss", 3.0 - step, step)
    writer.close()
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    points = [(event.step, event.value) for event in accumulator.Scalars("train/loss")]
    assert points == [
        (0, 3),
        (1, 2),
        (2, 1),
    ]
    assert accumulator.SummaryMetadata("train/loss").plugin_data.plugin_name == "scalars"


def test_nothing_is_written_before_five_seconds_and_all_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = CurveWriter(tmp_path)
    writer.scalar("a", 1.0, 1)
    now[0] += 4.9
    writer.scalar("a", 1.0, 2)
    assert list(tmp_path.iterdir()) == []
    now[0] += 0.2
    writer.scalar("a", 1.0, 3)
    assert read_points(tmp_path).curves["a"].steps.tolist() == [1, 2, 3]


def test_64_kib_are_written_at_once(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path)
    for step in range(2000):
        writer.scalar("train/loss", 1.0, step)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size >= 64 * 1024


def test_a_second_writer_in_a_directory_takes_a_later_name(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        writer = CurveWriter(tmp_path)
        writer.scalar("a", value, 1)
        writer.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["events.out.tfevents.0000000001.hpcft", "events.out.tfevents.0000000002.hpcft"]
    assert read_points(tmp_path).curves["a"].values.tolist() == [2.0]


def test_what_is_durable_needs_no_descriptor_more_than_there_is(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path)
    writer.scalar("a", 1.0, 1)
    writer.flush()
    open_now = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(1) for _ in range(open_now)]  # up to the highest, all are in use
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(1)
        wait = writer.durable()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    wait()
    assert read_points(tmp_path).curves["a"].steps.tolist() == [1]


def test_a_writer_that_logged_nothing_leaves_no_file(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path / "curve")
    writer.durable()()
    writer.close()
    writer.close()
    assert not (tmp_path / "curve").exists()


def test_a_directory_that_cannot_be_made_costs_points_not_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = CurveWriter(tmp_path / "file" / "curve")
    for step in range(10):
        writer.scalar("a", 1.0, step)
    writer.flush()
    writer.close()
    assert writer.lost == 10


def test_memory_is_bounded_while_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BYTES_KEPT", 6_000)
    (tmp_path / "file").write_text("in the way")
    writer = CurveWriter(tmp_path / "file" / "curve")
    for step in range(1000):
        writer.scalar("a", 1.0, step)
        if step == 10:
            writer.flush()
    assert writer.lost > 800
    (tmp_path / "file").unlink()
    writer.close()
    kept = read_points(tmp_path / "file" / "curve").curves["a"].steps
    assert kept.tolist() == list(range(writer.lost, 1000))


FILL = """
import sys
from pathlib import Path
from hpcft.curves.reader import read_points
from hpcft.curves.writer import CurveWriter
directory = Path(sys.argv[1])
writer = CurveWriter(directory)
for step in range(3000):
    writer.scalar("train/loss", step / 4, step)
    if step % 50 == 0:
        writer.flush()
assert len(list(directory.iterdir())) <= 2, list(directory.iterdir())
{make_room}
writer.scalar("train/loss", 750.0, 3000)
writer.durable()()
writer.close()
found = read_points(directory)
steps = found.curves["train/loss"].steps.tolist()
assert steps == list(range(3001)), (len(steps), writer.lost)
assert (found.curves["train/loss"].values * 4 == found.curves["train/loss"].steps).all()
assert writer.lost == 0
print(len(list(directory.iterdir())))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_points_survive_a_full_disk_that_gets_room_again(tmp_path: Path) -> None:
    script = FILL.format(make_room="import os; os.system(f'mount -o remount,size=4m {directory.parent}')")
    command = 'mount -t tmpfs -o size=64k none "$0" && exec "$1" -c "$2" "$0/curve"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", command, str(tmp_path), sys.executable, script],
                          capture_output=True, text=True)  # fmt: skip
    if "Operation not permitted" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip("this container may not mount")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2", "after the tear a new file goes on"


def test_points_survive_a_file_that_may_not_grow(tmp_path: Path) -> None:
    lift = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_001, resource.RLIM_INFINITY))

    # A limit on each file, unlike a full disk, lets the next file grow: there are as many as it takes.
    script = FILL.format(make_room=lift).replace("<= 2", "<= 6")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "curve")], preexec_fn=limit,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4


def test_a_killed_process_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from hpcft.curves.writer import CurveWriter
writer = CurveWriter(Path(sys.argv[1]))
for step in range(1, 501):
    writer.scalar("train/loss", 1.0, step)
    if step == 300:
        writer.flush()
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = read_points(tmp_path)
    assert found.curves["train/loss"].steps.tolist() == list(range(1, 301))
    assert found.damage.lost_bytes == 0


def test_logging_a_point_takes_microseconds(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path)
    begun = time.perf_counter()
    for step in range(5000):
        writer.scalar("train/loss", 1.0, step)
    assert (time.perf_counter() - begun) / 5000 < 200e-6
    writer.close()
