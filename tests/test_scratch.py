"""Scratch: gone with who made it, and by the next one's hand where that one was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.scratch import scratch_folder

HOLD = "from hpcft.scratch import scratch_folder as f\nwith f() as p: print(p, flush=True); input()"


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's own disk, here and in the processes that we start."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_what_a_killed_job_left_goes_with_the_next_and_what_lives_stays(tmp: Path) -> None:
    (tmp / "hpcft-scratch-of-an-older-hpcft").mkdir()
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, alive = (Path((holder.stdout.readline() if holder.stdout else "").strip()) for holder in holders)
    (killed / "progress.json").write_text("{}")
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait()
    with scratch_folder() as mine:
        assert sorted(tmp.iterdir()) == sorted([tmp / "hpcft-scratch-of-an-older-hpcft", alive, mine])
        assert mine.stat().st_mode & 0o077 == 0
    holders[1].communicate("\n")
    assert [path.name for path in tmp.iterdir()] == ["hpcft-scratch-of-an-older-hpcft"]


def test_it_is_gone_after_an_error_too(tmp: Path) -> None:
    with pytest.raises(ValueError, match="ours"), scratch_folder() as mine:
        assert mine.parent == tmp
        raise ValueError("ours")
    assert not list(tmp.iterdir())
