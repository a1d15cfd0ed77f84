"""Runs side by side: the keys in which they differ, what came of them, and the best."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console

from hpcft.disk import write_json
from hpcft.launch import comparetable
from hpcft.launch.compare import Result, best, words_on_best
from hpcft.rundir import RunDir
from tests.curves.chains import add_points
from tests.desk import Desk

MEASURES = "Known here: accuracy, gpu_hours, lowest_validation_loss, macro_f1, train_loss, validation_loss."


def make_run(desk: Desk, name: str, seed: int, accuracy: float | None = None, lowest: float = 1.0) -> RunDir:
    """A finished run of one job, with curves whose validation loss has its lowest value in the middle."""
    run = RunDir(desk.folder / "runs" / name)
    job = run.job(1)
    job.path.mkdir(parents=True)
    recipe = {"name": name, "task": "instruct", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    recipe["data"] |= {"template": f"/runs/{name}/template.md"}  # type: ignore[operator]
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 20, "seed": seed}})
    record = {"recipe": recipe, "time": seed, "cluster": {"name": "here", "kind": "local", "runs": "x"}, "env": "/e"}
    write_json(run.path / "submission.json", record)
    write_json(run.path / "queued.json", {"time": 0})
    write_json(run.path / "finished.json", {"step": 20})
    write_json(job.path / "submitted.json", {"slurm_id": "1", "walltime": 60, "time": 0, "gpus": 1})
    write_json(job.path / "started.json", {"time": 0, "pid": 1, "identity": "x"})
    write_json(job.path / "resumed.json", {"step": 0, "total_steps": 20})
    ended = {"ending": "finished", "time": 1800, "wall_seconds": 1800, "first_step": 0, "last_step": 20, "seconds": {}}
    write_json(job.path / "ended.json", ended)
    add_points(job.curve, "train/loss", list(range(1, 21)), 2)
    add_points(job.curve, "validation/loss", [0, 20], 3)
    add_points(job.curve, "validation/loss", [10], int(lowest))
    if accuracy is not None:
        run.evaluation.mkdir()
        tested = {"accuracy": accuracy, "interval": [accuracy - 0.05, accuracy + 0.05], "majority": 0.5}
        write_json(run.evaluation / "after.json", {**tested, "macro_f1": accuracy - 0.01, "rows": 100})
    return run


@pytest.fixture
def runs(desk: Desk) -> Desk:
    """Three runs that differ in their seed alone."""
    for seed, accuracy in ((1, 0.70), (2, 0.81), (3, 0.78)):
        make_run(desk, f"grid-seed-{seed}", seed, accuracy, lowest=seed)
    return desk


TABLE = """\
run          seed  steps  train loss  validation  lowest (step)  accuracy    95% interval  macro F1  GPU h  state
grid-seed-2  2     20/20      2.0020      3.0020    2.0010 (10)     81.0%  76.0% to 86.0%     80.0%   0.50  finished
grid-seed-3  3     20/20      2.0020      3.0020     3.0000 (0)     78.0%  73.0% to 83.0%     77.0%   0.50  finished
grid-seed-1  1     20/20      2.0020      3.0020    1.0010 (10)     70.0%  65.0% to 75.0%     69.0%   0.50  finished

best by accuracy: grid-seed-2, 81.0%; within its interval lies grid-seed-3 (78.0%)
the commonest answer alone: 50.0%
"""


def test_the_table_has_the_keys_that_differ_and_the_best_run_first(runs: Desk) -> None:
    answer = runs.run("compare", "grid", "--runs", "runs")
    assert (answer.code, answer.err) == (0, "")
    assert [line.rstrip() for line in answer.out.splitlines()] == TABLE.splitlines()


def test_on_a_narrow_terminal_settings_stand_below_and_no_name_is_cut(
    runs: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.folder / "runs" / "grid-seed-1" / "recipe.json"
    values = json.loads(recipe.read_text())
    values["data"] |= {"train": "/far/away/other.jsonl", "split": {"validation": 0.1}}
    recipe.write_text(json.dumps(values))
    monkeypatch.setattr(comparetable, "console", Console(width=60))
    lines = [line.rstrip() for line in runs.run("compare", "grid", "--runs", "runs").out.splitlines()]
    assert [line.split()[0] for line in lines[1:4]] == ["grid-seed-2", "grid-seed-3", "grid-seed-1"]
    assert max(map(len, lines[:4])) <= 60
    assert lines[4:7] == [
        "grid-seed-2: data.train t.jsonl, train.seed 2",
        "grid-seed-3: data.train t.jsonl, train.seed 3",
        "grid-seed-1: data.train far/away/other.jsonl, data.split.validation 0.1, data.split.seed 0, train.seed 1",
    ]


def test_of_runs_that_were_tested_on_different_rows_none_is_the_best(runs: Desk) -> None:
    report = runs.folder / "runs" / "grid-seed-1" / "evaluation" / "after.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "rows": 90}))
    shown = runs.run("compare", "grid", "--runs", "runs").out
    assert "no best by accuracy: these runs were tested on different rows\n" in shown
    assert json.loads(runs.run("compare", "grid", "--json", "--runs", "runs").out)["best"] is None
    assert "best by validation_loss: " in runs.run("compare", "grid", "--by", "validation_loss", "--runs", "runs").out
    assert "best by accuracy: grid-seed-2" in runs.run("compare", "grid-seed-2", "grid-seed-3", "--runs", "runs").out


def test_another_measure_makes_another_run_the_best(runs: Desk) -> None:
    shown = runs.run("compare", "grid-seed-1", "grid-seed-2", "--by", "lowest_validation_loss", "--runs", "runs").out
    assert "best by lowest_validation_loss: grid-seed-1, 1.0010\n" in shown and "grid-seed-3" not in shown


def test_programs_get_json_and_the_picture_is_drawn_beside_it(runs: Desk) -> None:
    answer = runs.run("compare", "grid", "--json", "-o", "grid.svg", "--runs", "runs")
    found = json.loads(answer.out)
    assert (found["by"], found["best"], found["not_there"]) == ("accuracy", "grid-seed-2", [])
    assert found["runs"][0]["settings"] == {"train.seed": 2}
    assert found["runs"][0]["interval"] == pytest.approx([0.76, 0.86])
    assert "grid-seed-2" in (runs.folder / "grid.svg").read_text()


def test_a_recipe_with_a_matrix_means_the_newest_run_of_each(desk: Desk) -> None:
    desk.write("grid.yaml", (desk.folder / "demo.yaml").read_text().replace("name: demo", "name: grid"))
    desk.write("grid.yaml", (desk.folder / "grid.yaml").read_text() + "matrix: {train.seed: [1, 2]}\n")
    make_run(desk, "grid-seed-1", 1)
    again = make_run(desk, "grid-seed-1-2", 1)
    record = {**(again.submission or {}), "time": 9}
    write_json(again.path / "submission.json", {**record, "recipe": {**record["recipe"], "name": "grid-seed-1"}})
    shown = desk.run("compare", "grid.yaml", "--runs", "runs").out
    assert "grid-seed-1-2" in shown and shown.endswith("not there: grid-seed-2\n")
    assert len([line for line in shown.splitlines() if line.startswith("grid-")]) == 1


def test_words_that_mean_no_run_are_all_said(runs: Desk) -> None:
    answer = runs.run("compare", "gird", "demo.yaml", "--runs", "runs")
    assert answer.code == 2 and answer.err.splitlines() == [
        "hpcft: gird: no run's name begins so in runs. There: grid-seed-1, grid-seed-2, grid-seed-3.",
        "hpcft: demo.yaml: no run of it is in runs. `hpcft submit demo.yaml` makes it.",
    ]


def test_a_measure_that_is_none_or_that_no_run_has_is_a_fault(desk: Desk) -> None:
    make_run(desk, "grid-seed-1", 1)
    assert desk.run("compare", "grid", "--by", "beauty", "--runs", "runs").err == (
        f'hpcft: --by: "beauty" is no measure. {MEASURES}\n'
    )
    assert desk.run("compare", "grid", "--by", "macro_f1", "--runs", "runs").err == (
        "hpcft: --by: no run has macro_f1 yet. There: validation_loss, lowest_validation_loss, train_loss, gpu_hours.\n"
    )


def test_the_curves_are_a_page_too_whose_first_run_is_the_best(runs: Desk) -> None:
    assert runs.run("compare", "grid", "-o", "grid.html", "--runs", "runs").out.endswith("grid.html\n")
    text = (runs.folder / "grid.html").read_text()
    assert re.findall(r'"name":"(grid[^"]*)"', text) == ["grid-seed-2", "grid-seed-3", "grid-seed-1"]


def test_a_picture_that_cannot_be_is_a_fault(runs: Desk) -> None:
    said = runs.run("compare", "grid", "-o", "grid.gif", "--runs", "runs")
    assert (said.code, said.err) == (
        2,
        "hpcft: -o: no picture: grid.gif: a picture is .svg, .png or .html, not '.gif'.\n",
    )


def result(name: str, accuracy: float | None, interval: tuple[float, float] | None = None) -> Result:
    return Result(name, "running", 3, 9, {}, 2.0, None, None, None, accuracy, interval, None, None, None, 1.0)


def test_runs_without_the_measure_come_last_and_without_any_all_stay_as_they_are() -> None:
    one, two, three = result("a", None), result("b", 0.5, (0.4, 0.6)), result("c", 0.9, (0.8, 0.95))
    by, order = best([one, two, three], None)
    assert (by, [found.name for found in order]) == ("accuracy", ["c", "b", "a"])
    assert words_on_best("accuracy", order) == "best by accuracy: c, 90.0%"
