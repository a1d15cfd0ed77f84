"""`hpcft stitch`: what others logged becomes a view that any TensorBoard shows as one curve."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.disk import write_json
from tests.curves.chains import add_points
from tests.desk import Answer, Desk, make_desk


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers, accelerate, torch's SummaryWriter and Lightning's layout leave; made once, in 20 seconds."""
    out = tmp_path_factory.mktemp("foreign")
    done = subprocess.run(
        [sys.executable, "-m", "tests.curves.foreign", str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


def shown(view: Path, run: str = "stitched") -> dict[str, list[tuple[int, float]]]:
    """What a run of the view shows, by tag, as (step, value) in the order in which it is shown."""
    read = EventAccumulator(str(view / run), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def table(said: Answer) -> list[list[str]]:
    """The rows below the table's head, cut at its columns."""
    lines = said.out.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("start "))
    rows = [line for line in lines[head + 1 :] if line[:5].strip().isdigit()]
    return [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]


@pytest.mark.slow
def test_a_trainer_that_was_killed_twice_shows_the_losses_of_its_own_last_record(desk: Desk, foreign: Path) -> None:
    """transformers keeps the log of the surviving steps in its checkpoints: what the curve must be."""
    said = desk.run("stitch", str(foreign / "trainer"), "-o", "view")
    assert (said.code, said.err) == (0, "")
    history = json.loads((foreign / "trainer" / "checkpoint-60" / "trainer_state.json").read_text())["log_history"]
    curves = shown(desk.folder / "view")
    for tag, key in (("train/loss", "loss"), ("eval/loss", "eval_loss"), ("train/grad_norm", "grad_norm")):
        truth = [(row["step"], row[key]) for row in history if key in row]
        assert [step for step, _ in curves[tag]] == [step for step, _ in truth]
        assert [value for _, value in curves[tag]] == pytest.approx([value for _, value in truth], rel=1e-6)
    # Its last start wrote a file for the training and one for the evaluation behind it.
    assert [row[3] for row in table(said)] == ["0", "20", "40", "60"]
    assert said.out.startswith("4 starts; where each went on is inferred from its steps, not known:\n")
    assert said.out.endswith("tensorboard --logdir view\n")
    assert (desk.folder / "view" / "starts.txt").read_text() in said.out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "purged"])
def test_files_of_a_summary_writer_in_one_folder_are_a_start_each(desk: Desk, foreign: Path, name: str) -> None:
    said = desk.run("stitch", str(foreign / name), "-o", "view")
    assert [row[1:4] for row in table(said)] == [[f"{name}.1", "1 to 234", "0"], [f"{name}.2", "201 to 400", "200"]]
    why = "it was begun with purge_step 201" if name == "purged" else "its loss begins at 201, every 1"
    assert table(said)[1][4] == why
    assert table(said)[0][5] == "201 to 234, 34 points"
    curves = shown(desk.folder / "view")
    assert curves["loss"] == [(step, 1.0 if step <= 200 else 2.0) for step in range(1, 401)]
    assert curves["val"] == [(step, 1.0 if step <= 200 else 2.0) for step in range(50, 401, 50)]


@pytest.mark.slow
def test_accelerates_tracker_and_lightnings_versions_are_stitched(desk: Desk, foreign: Path) -> None:
    said = desk.run("stitch", str(foreign / "accelerate"), "-o", "accelerate")
    assert [row[1:4] for row in table(said)] == [["mine.1", "1 to 30", "0"], ["mine.2", "21 to 40", "20"]]
    assert [step for step, _ in shown(desk.folder / "accelerate")["loss"]] == list(range(1, 41))
    said = desk.run("stitch", str(foreign / "lightning_logs"), "-o", "lightning")
    assert [row[1:4] for row in table(said)] == [["version_0", "0 to 239", "0"], ["version_1", "0 to 409", "199"]]
    curves = shown(desk.folder / "lightning")
    assert [step for step, _ in curves["train_loss"]] == list(range(9, 410, 10))
    assert curves["hp_metric"] == [(0, -1.0)]


def two_starts(folder: Path) -> None:
    now = time.time() - 10_000
    add_points(folder / "a", "loss", list(range(1, 235)), 1, now)
    add_points(folder / "b", "loss", list(range(201, 401)), 2, now + 1000)


def test_each_start_is_a_run_that_begins_where_the_one_before_ends(desk: Desk) -> None:
    two_starts(desk.folder / "logs")
    assert desk.run("stitch", "logs", "-o", "view").code == 0
    runs = sorted(path.name for path in (desk.folder / "view").iterdir() if path.is_dir())
    assert runs == ["start001-a", "start002-b", "stitched"]
    first, second = (shown(desk.folder / "view", run)["loss"] for run in runs[:2])
    assert (first[-1], [step for step, _ in second]) == (second[0], list(range(200, 401)))
    steps = [step for step, _ in shown(desk.folder / "view")["loss"]]
    assert all(one < next_ for one, next_ in pairwise(steps))


def test_what_was_damaged_is_said(desk: Desk) -> None:
    two_starts(desk.folder / "logs")
    (torn,) = (desk.folder / "logs" / "a").iterdir()
    torn.write_bytes(torn.read_bytes()[:-10])
    said = desk.run("stitch", "logs", "-o", "view")
    assert " bytes lost" in table(said)[0][6]
    assert len(shown(desk.folder / "view")["loss"]) == 400


def test_a_folder_of_others_is_never_written_to(desk: Desk) -> None:
    two_starts(desk.folder / "logs")
    (desk.folder / "mine").mkdir()
    (desk.folder / "mine" / "thesis.tex").touch()
    said = desk.run("stitch", "logs", "-o", "mine")
    assert said.code == 2
    assert said.err == "hpcft: -o: mine holds files that hpcft did not make. Name another directory.\n"
    said = desk.run("stitch", "logs/a", "-o", "logs")
    assert said.err == "hpcft: -o: logs/a lies in it, and would be replaced. Name another folder.\n"
    assert sorted(path.name for path in (desk.folder / "logs").iterdir()) == ["a", "b"]


def test_a_view_among_the_logs_is_no_start_and_is_made_anew(desk: Desk) -> None:
    two_starts(desk.folder / "logs")
    for _ in range(2):
        said = desk.run("stitch", "logs", "-o", "logs/view")
        assert (said.code, len(table(said))) == (0, 2)


def test_where_there_is_nothing_to_stitch_nothing_is_made(desk: Desk) -> None:
    (desk.folder / "empty").mkdir()
    said = desk.run("stitch", "empty", "-o", "view")
    assert said.code == 2
    assert said.err == "hpcft: empty: has no event files (events.out.tfevents.*) in it or below.\n"
    (desk.folder / "empty" / "events.out.tfevents.1700000000.host").touch()
    assert desk.run("stitch", "empty", "-o", "view").err.endswith("has event files, but no scalar in any of them.\n")
    said = desk.run("stitch", "absent", "gone", "-o", "view")
    assert said.err == (
        "hpcft: absent: is not there. Name a folder with event files.\n"
        "hpcft: gone: is not there. Name a folder with event files.\n"
    )
    assert not (desk.folder / "view").exists()


def own_run(desk: Desk) -> Path:
    """A run of hpcft, whose second job went on at 150, though it logs every 100 steps."""
    run = desk.folder / "runs" / "own"
    write = {"name": "own", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    for number, (step, steps) in enumerate(((0, [50, 120, 190]), (150, [200, 300])), 1):
        job = run / "jobs" / f"{number:03d}"
        add_points(job / "curve", "train/loss", steps, number)
        write_json(job / "submitted.json", {"slurm_id": f"471{number}", "walltime": 60, "time": 0})
        write_json(job / "resumed.json", {"step": step, "total_steps": 300})
    write_json(run / "recipe.json", {**write, "train": {"steps": 300}})
    return run


def test_a_run_of_hpcft_is_stitched_from_its_own_records(desk: Desk) -> None:
    own_run(desk)
    said = desk.run("stitch", "runs/own", "-o", "view")
    assert said.out.startswith("own is a run of hpcft: 2 jobs, stitched from its own records\n")
    assert [step for step, _ in shown(desk.folder / "view")["train/loss"]] == [50, 120, 200, 300]
    two_starts(desk.folder / "logs")
    said = desk.run("stitch", "runs/own", "logs", "-o", "other")
    assert said.err.endswith("own: is a run of hpcft, which is stitched from its own records. Name it alone.\n")


@pytest.mark.slow
def test_it_follows_until_ctrl_c_and_a_new_start_appears(desk: Desk) -> None:
    two_starts(desk.folder / "logs")
    shutil.move(desk.folder / "logs" / "b", desk.folder / "later")
    command = [sys.executable, "-m", "hpcft.cli", "stitch", "logs", "-o", "view", "--follow"]
    process = subprocess.Popen(command, cwd=desk.folder, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "Ctrl-C ends it.\n":
            assert process.poll() is None
        shutil.move(desk.folder / "later", desk.folder / "logs" / "b")
        assert process.stdout.readline().startswith("2 starts;")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert len(shown(desk.folder / "view")["loss"]) == 400
