"""What rank 0 tells the supervisor is on disk when a job ends, wherever it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import read_json
from hpcft.train.control import Stop
from hpcft.train.progress import Progress


def test_the_seconds_of_a_phase_that_a_stop_interrupts_are_told_and_it_does_not_count_as_done(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress.json", active=True)
    progress.say(phase="train")
    with pytest.raises(Stop), progress.phase("test"):
        raise Stop
    told = read_json(tmp_path / "progress.json") or {}
    assert told["seconds"]["test"] > 0 and told["counts"] == {} and told["phase"] == "train"
