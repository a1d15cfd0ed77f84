"""Facts written whole, and the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.disk import Lock, locked, read_json, write_json, write_whole

# --- facts ---


def test_a_fact_is_read_as_it_was_written_and_one_never_written_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "fact.json", {"b": [1, None], "a": "ü"})
    assert read_json(tmp_path / "fact.json") == {"a": "ü", "b": [1, None]}
    assert read_json(tmp_path / "other.json") is None
    assert [path.name for path in tmp_path.iterdir()] == ["fact.json"]
    assert (tmp_path / "fact.json").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_fact_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fact.json"
    write_whole(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["fact.json"]


def test_a_reader_beside_a_killed_writer_sees_one_whole_fact_or_another(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    write_json(path, {"number": 0, "same": 0})
    code = (
        "import sys; from pathlib import Path; from hpcft.disk import write_json\n"
        "for number in range(10**9): write_json(Path(sys.argv[1]), {'number': number, 'same': number}, durable=False)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        seen = set()
        while len(seen) < 50:
            fact = read_json(path)
            assert fact is not None
            assert fact["number"] == fact["same"]
            seen.add(fact["number"])
            assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    fact = read_json(path)
    assert fact is not None
    assert fact["number"] == fact["same"]


# --- the lock ---

HOLDER = """
import sys, time
from pathlib import Path
from hpcft.disk import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.take()
print("mine", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_keeps_nothing(tmp_path: Path, end: signal.Signals) -> None:
    lock = Lock(tmp_path / "lock")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    assert lock.held()
    assert not lock.take()
    assert not lock.take(patience=0.2)
    holder.send_signal(end)
    assert lock.take(patience=5.0)
    holder.wait()
    holder.stdout.close()
    lock.drop()
    assert not lock.held()


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = HOLDER.replace("time.sleep(60)", "import subprocess; subprocess.Popen(['sleep', '60'], stdout=-3)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, timeout=20)
    assert done.stdout == b"mine\n"
    assert Lock(tmp_path / "lock").take()


def test_one_holder_at_a_time_and_the_next_after_it_let_go(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert not first.held()
    assert first.take()
    assert first.held()
    assert second.held()
    with locked(tmp_path / "lock") as mine:
        assert not mine
    first.drop()
    with locked(tmp_path / "lock") as mine:
        assert mine
        assert not second.take()
    assert second.take()
