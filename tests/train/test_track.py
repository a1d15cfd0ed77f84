"""Other trackers get the stitched curve: one run of theirs a chain, each step once, whatever is killed.

The packages are no part of hpcft. Trackio, the lightest, is there for every test run; the others are tried where they
are installed: `pip install hpcft[trackers]`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcft.curves.jobs import job_curves
from hpcft.curves.stitch import stitch
from hpcft.curves.writer import CurveWriter
from hpcft.disk import read_json, write_json
from hpcft.launch.trackfit import variables
from hpcft.rundir import RunDir
from hpcft.train.track import Forwarder, rows_between, settled

Curves = dict[str, list[tuple[int, float]]]
BEGAN = 1.75e9
"""When the run began, in seconds since 1970; a step takes a second."""


def make_run(folder: Path) -> RunDir:
    run = RunDir(folder / "demo")
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    write = {**recipe, "train": {"steps": 400, "learning_rate": 1e-4}, "track": {"to": ["trackio"], "project": "ours"}}
    run.path.mkdir(parents=True)
    write_json(run.path / "recipe.json", write)
    return run


def begin_job(run: RunDir, number: int, resumed: int) -> CurveWriter:
    job = run.job(number)
    job.path.mkdir(parents=True)
    write_json(job.path / "submitted.json", {"slurm_id": f"47{number}", "walltime": 60, "time": 0})
    write_json(job.path / "resumed.json", {"step": resumed, "total_steps": 400})
    return CurveWriter(job.curve)


def train(curve: CurveWriter, number: int, first: int, last: int) -> None:
    """Steps of a job: the loss of each, which is the job's number and a NaN at step 7, and an evaluation every 50."""
    for step in range(first, last + 1):
        loss = math.nan if step == 7 else number + step / 10_000
        curve.scalar("train/loss", loss, step, BEGAN + step)
        if step % 50 == 0:
            curve.scalar("validation/loss", number, step, BEGAN + step)
    curve.flush()


def save(run: RunDir, step: int) -> None:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {})


def curve_of(run: RunDir) -> Curves:
    stitched = stitch(job_curves(run))
    return {tag: list(zip(*_lists(stitched.curve(tag)), strict=True)) for tag in stitched.tags}


def _lists(points: Any) -> tuple[list[int], list[float]]:
    return points.steps.tolist(), points.values.tolist()


# --- what is settled ---


def test_a_step_is_settled_when_a_checkpoint_lies_behind_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert settled(run) == -1
    save(run, 200)
    assert settled(run) == 199
    write_json(run.path / "finished.json", {"step": 200})
    assert settled(run) == math.inf


def test_rows_are_those_of_the_stitched_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(begin_job(run, 1, 0), 1, 1, 234)
    train(begin_job(run, 2, 200), 2, 201, 210)
    rows = rows_between(stitch(job_curves(run)), 198, 202)
    assert [(row.step, row.wall_time) for row in rows] == [(step, BEGAN + step) for step in (199, 200, 201, 202)]
    assert rows[1].values == {"train/loss": pytest.approx(1.02), "validation/loss": 1.0}
    assert rows[2].values == {"train/loss": pytest.approx(2.0201)}


class Idle:
    """A tracker's run that is open."""

    id = "one"

    def last_step(self) -> float:
        return -1

    def send(self, rows: object) -> None: ...

    def finish(self) -> None: ...


def test_a_run_that_cannot_be_read_for_now_ends_no_tracker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    train(begin_job(run, 1, 0), 1, 1, 20)
    save(run, 10)
    forwarder = Forwarder(run, run.job(1), "trackio")
    record = run.job(1).path / "resumed.json"
    away = record.rename(tmp_path / "away")
    record.symlink_to(record)  # whoever opens it gets an error of the system
    forwarder.forward()
    forwarder._session = Idle()
    forwarder.finish()
    assert (
        "trackio did not take the curve: the run's records could not be read: too many levels"
        in capsys.readouterr().out
    )
    assert "too many levels" in (read_json(run.trackers / "trackio.json") or {})["fault"]
    record.unlink()
    away.rename(record)
    given: list[int] = []
    forwarder._give = lambda rows: given.extend(row.step for row in rows)  # type: ignore[method-assign]
    forwarder.forward()
    assert given == list(range(1, 10))


# --- with the real trackers ---


def read_wandb(run: RunDir) -> tuple[set[str], Curves]:
    from hpcft.train.trackers import wandb_records

    curves: Curves = {}
    ids = set()
    for path in sorted((run.trackers / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
            for item in record.history.item if kind == "history" else ():
                key = item.key or "/".join(item.nested_key)
                if not key.startswith("_"):
                    curves.setdefault(key, []).append((record.history.step.num, float(json.loads(item.value_json))))
    return ids, curves


def read_mlflow(run: RunDir) -> tuple[set[str], Curves]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{run.trackers / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ours")
    found = client.search_runs([experiment.experiment_id])
    history = {key: client.get_metric_history(found[0].info.run_id, key) for one in found for key in one.data.metrics}
    assert all(point.timestamp == int((BEGAN + point.step) * 1000) for points in history.values() for point in points)
    assert found[0].data.params["train.learning_rate"] == "0.0001"
    assert found[0].info.run_name == "demo"
    return {one.info.run_id for one in found}, {
        key: [(point.step, point.value) for point in points] for key, points in history.items()
    }


def read_trackio(run: RunDir) -> tuple[set[str], Curves]:
    curves: Curves = {}
    runs = set()
    with contextlib.closing(sqlite3.connect(run.trackers / "trackio" / "ours.db")) as database:
        for name, step, metrics in database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
            runs.add(name)
            for key, value in json.loads(metrics).items():
                curves.setdefault(key, []).append((step, math.nan if value is None else float(value)))
    return runs, curves


def read_aim(run: RunDir) -> tuple[set[str], Curves]:
    from aim import Repo, Run

    folder = str(run.trackers / "aim")
    known = Repo.from_path(folder).list_all_runs()
    # Opened to write: what is read only needs an index, which `aim up` makes.
    found = Run(known[0], repo=folder, system_tracking_interval=None, log_system_params=False)
    frames = {metric.name: metric.dataframe() for metric in found.metrics()}
    found.close()
    curves = {
        name: sorted(zip(frame["step"].tolist(), frame["value"].tolist(), strict=True))
        for name, frame in frames.items()
    }
    return set(known), curves


READERS: dict[str, Callable[[RunDir], tuple[set[str], Curves]]] = {
    "aim": read_aim,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
    "wandb": read_wandb,
}


@contextlib.contextmanager
def tracking(run: RunDir, number: int, tracker: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that a job's supervisor starts, on a node without internet."""
    command = [sys.executable, "-m", "hpcft.train.track", str(run.path), str(number), "1", tracker]
    with (run.job(number).path / "trackers.txt").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **variables(internet=False)},
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(run: RunDir, tracker: str, step: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while ((read_json(run.trackers / f"{tracker}.json") or {}).get("given") or -1) < step:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(120) == 0


@pytest.mark.slow
@pytest.mark.parametrize("tracker", sorted(READERS))
def test_a_chain_with_a_kill_is_one_run_with_each_step_once(tmp_path: Path, tracker: str) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install hpcft[trackers]")
    run = make_run(tmp_path)
    first = begin_job(run, 1, 0)
    train(first, 1, 1, 234)
    save(run, 200)
    with tracking(run, 1, tracker) as process:
        end(process)
    assert read_json(run.trackers / f"{tracker}.json")["sent"] == 199  # type: ignore[index]

    second = begin_job(run, 2, 200)
    train(second, 2, 201, 330)
    save(run, 300)
    with tracking(run, 2, tracker) as process:
        wait_for(run, tracker, 299, process)  # and is killed with all that it has started, its run still open

    third = begin_job(run, 3, 300)
    train(third, 3, 301, 400)
    save(run, 400)
    with tracking(run, 3, tracker) as process:
        wait_for(run, tracker, 399, process)
        write_json(run.path / "finished.json", {"step": 400})
        end(process)
    log = (run.job(3).path / "trackers.txt").read_text()
    runs, curves = READERS[tracker](run)
    assert len(runs) == 1, log
    expected = curve_of(run)
    assert curves.keys() == expected.keys(), log
    for tag, points in expected.items():
        assert [step for step, _ in curves[tag]] == [step for step, _ in points]
        assert [value for _, value in curves[tag]] == pytest.approx([value for _, value in points], nan_ok=True)
    state = read_json(run.trackers / f"{tracker}.json") or {}
    assert (state["sent"], state["fault"]) == (400, None)
    assert not run.job(3).log.exists()
