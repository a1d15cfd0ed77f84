"""A run on this machine whose curve another tracker gets: it is the same run, and the tracker has the same curve."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hpcft.disk import read_json
from hpcft.launch.status import read_status
from hpcft.launch.why import explain
from hpcft.rundir import RunDir
from tests.promise import (
    ENVIRONMENT,
    hpcft,
    is_over,
    job_tree,
    kill,
    make_parts,
    make_recipe,
    outcome,
    run_whole,
    running_job,
    wait_for,
)

pytest.importorskip("trackio", reason="trackio is not installed: pip install hpcft[dev]")
pytestmark = pytest.mark.slow
TRACKED = "--set=track.to=[trackio]"


def said_of_tracker(run: RunDir) -> dict[str, Any]:
    (status,) = read_status([run])
    (tracker,) = status.trackers
    return tracker


def test_a_killed_run_that_is_tracked_ends_as_one_whose_tracker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_parts(tmp_path)
    assert hpcft("submit", make_recipe(tmp_path, "killed", 24), "--runs", tmp_path / "runs", TRACKED).returncode == 0
    killed = RunDir(tmp_path / "runs" / "killed")
    wait_for(lambda: max(killed.saved_steps(), default=0) >= 8)
    job = running_job(killed)
    assert job is not None
    kill(job_tree(job))
    wait_for(lambda: (read_json(killed.trackers / "trackio.json") or {}).get("sent") == 24)
    assert is_over(killed) and len([one for one in killed.jobs() if one.resumed]) == 2
    with closing(sqlite3.connect(killed.trackers / "trackio" / "killed.db")) as database:
        rows = [(step, json.loads(metrics)) for step, metrics in database.execute("SELECT step, metrics FROM metrics")]
    come = outcome(killed)
    assert [(step, row["train/loss"]) for step, row in rows if "train/loss" in row] == come.curve
    assert [(step, row["validation/loss"]) for step, row in rows if "validation/loss" in row] == come.validation
    tracker = said_of_tracker(killed)
    assert (tracker["name"], tracker["step"], tracker["fault"]) == ("trackio", 24, None)

    (tmp_path / "file").touch()
    monkeypatch.setitem(ENVIRONMENT, "TRACKIO_DIR", str(tmp_path / "file" / "below"))
    whole = run_whole(make_recipe(tmp_path, "whole", 24), tmp_path / "runs", TRACKED)
    assert outcome(whole) == come
    fault = said_of_tracker(whole)["fault"]
    assert fault == "RuntimeError: it has kept nothing behind step -1, of 24"
    assert f"hpcft: trackio did not take the curve: {fault}." in whole.job(1).log.read_text()
    said = explain(whole)
    assert said[0].startswith("Nothing went wrong in whole")
    assert said[-1].endswith(f"It did not take more: {fault}")
