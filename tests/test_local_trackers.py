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


Curve = list[tuple[int, float]]


def read_curves(run: RunDir) -> tuple[Curve, Curve]:
    """What Trackio has of the training loss and of the validation loss."""
    with closing(sqlite3.connect(run.trackers / "trackio" / f"{run.name}.db")) as database:
        rows = [(step, json.loads(metrics)) for step, metrics in database.execute("SELECT step, metrics FROM metrics")]
    train, validation = (
        [(step, row[tag]) for step, row in rows if tag in row] for tag in ("train/loss", "validation/loss")
    )
    return train, validation


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
    come = outcome(killed)
    assert read_curves(killed) == (come.curve, come.validation)
    tracker = said_of_tracker(killed)
    assert (tracker["name"], tracker["step"], tracker["fault"]) == ("trackio", 24, None)

    (tmp_path / "file").touch()
    monkeypatch.setitem(ENVIRONMENT, "TRACKIO_DIR", str(tmp_path / "file" / "below"))
    whole = run_whole(make_recipe(tmp_path, "whole", 24), tmp_path / "runs", TRACKED)
    assert outcome(whole) == come
    wait_for(lambda: said_of_tracker(whole)["fault"])
    fault = said_of_tracker(whole)["fault"]
    assert fault == "RuntimeError: it has kept nothing behind step -1, of 24"
    assert f"hpcft: trackio did not take the curve: {fault}." in whole.job(1).log.read_text()
    said = explain(whole)
    assert said[0].startswith("Nothing went wrong in whole")
    assert said[-1].endswith(f"It did not take more: {fault}")

    wait_for(lambda: not whole.lock.held())
    monkeypatch.delitem(ENVIRONMENT, "TRACKIO_DIR")
    done = hpcft("track", "whole", "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("trackio: the curve to step 24, as whole-")
    assert read_curves(whole) == (come.curve, come.validation)
    assert said_of_tracker(whole)["fault"] is None
