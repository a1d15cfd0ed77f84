"""A matrix before the queue: the table of its runs, and that a submit which dies leaves nothing half-done."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hpcft.launch import chain, sweep
from hpcft.launch.fetch import wanted
from hpcft.launch.plan import make_plans
from hpcft.rundir import RunDir, find_runs
from tests.desk import Desk
from tests.launch.test_status import make_run

MATRIX = "matrix:\n  train.seed: [1, 2]\n  size:\n    small: {data.max_length: 64}\n    usual: {}\n"
TABLE = """\
run                train.seed  data.max_length  job             jobs  job time  GPU-hours  disk
demo-seed-1-small  1           64               2:00:00, 1 GPU     ?         ?          ?     ?
demo-seed-1-usual  1           512              2:00:00, 1 GPU     ?         ?          ?     ?
demo-seed-2-small  2           64               2:00:00, 1 GPU     ?         ?          ?     ?
demo-seed-2-usual  2           512              2:00:00, 1 GPU     ?         ?          ?     ?

4 runs in runs, cluster site
GPU-hours  unknown until the first job has run
disk       unknown until the first job has run
`--set matrix=seed-1-small` shows the script and the plan of one.
"""
SBATCH = 'n=$(($(cat {0}/last 2> /dev/null || echo 100) + 1)); echo $n > {0}/last; echo "Submitted batch job $n"'


@pytest.fixture
def matrix(desk: Desk) -> Desk:
    """A desk with four runs in a recipe, and a Slurm that takes everything."""
    desk.write("demo.yaml", (desk.folder / "demo.yaml").read_text() + MATRIX)
    desk.program("sbatch", f"PATH=/usr/bin:/bin; {SBATCH.format(desk.folder)}")
    for name in ("squeue", "scontrol", "scancel"):
        desk.program(name, "exit 0")
    return desk


def states(desk: Desk) -> dict[str, bool]:
    """Whether each run waits, by name."""
    return {run.name: run.waits for run in find_runs(desk.folder / "runs")}


def test_a_dry_run_shows_the_runs_as_a_table_with_their_sums(matrix: Desk) -> None:
    assert [line.rstrip() for line in matrix.accepts().splitlines()] == TABLE.splitlines()


def test_a_submit_makes_a_run_of_each_and_a_second_one_makes_others(matrix: Desk) -> None:
    answer = matrix.run("submit", "demo.yaml")
    assert (answer.code, answer.err) == (0, "")
    assert "run demo-seed-1-small: jobs 1 (101), 2 (102), 3 (103) queued\n" in answer.out
    assert answer.out.endswith("`hpcft status` shows them, `hpcft compare demo.yaml` compares them.\n")
    runs = find_runs(matrix.folder / "runs")
    assert [(run.recipe.train.seed, run.recipe.data.max_length) for run in runs] == [
        (1, 64),
        (1, 512),
        (2, 64),
        (2, 512),
    ]
    assert sweep.matrix_of(runs[0]) == {
        "id": (sweep.matrix_of(runs[3]) or {})["id"],
        "index": 0,
        "name": "demo",
        "settings": {"train.seed": 1, "data.max_length": 64},
    }
    assert not list((matrix.folder / "runs").glob(".matrix-*.json"))
    shown = " ".join(matrix.run("show", "demo-seed-1-small", "--runs", "runs").out.split())
    assert "matrix run 1 of demo: data.max_length=64, train.seed=1" in shown
    assert "run demo-seed-1-small-2: jobs" in matrix.run("submit", "demo.yaml").out


@pytest.mark.parametrize("made", [0, 1, 3])
def test_a_submit_that_dies_is_completed_by_the_next_which_says_what_was_there(
    matrix: Desk, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    whole, calls = chain.make_run, itertools.count()

    def dies(*arguments: object) -> object:
        if next(calls) == made:
            raise SystemExit(137)
        return whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(chain, "make_run", dies)
        assert matrix.run("submit", "demo.yaml").code == 137
    assert list(states(matrix).values()) == [True] * made, "none is queued before all are made"
    said = matrix.run("submit", "demo.yaml").out
    assert said.count("was there already, of a submit that was killed; jobs") == made
    assert list(states(matrix).values()) == [False] * 4


def test_one_that_dies_among_the_jobs_is_completed_too(matrix: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = chain.fill, itertools.count()

    def dies(run: RunDir) -> object:
        if next(calls) == 2:
            raise SystemExit(137)
        return whole(run)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "fill", dies)
        assert matrix.run("submit", "demo.yaml").code == 137
    assert list(states(matrix).values()) == [False, False, True, True]
    said = matrix.run("submit", "demo.yaml").out
    assert said.count("was there already") == 4
    assert states(matrix) == dict.fromkeys(states(matrix), False) and len(states(matrix)) == 4


def test_a_changed_recipe_takes_away_what_has_not_begun_and_names_what_has(
    matrix: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = chain.fill, itertools.count()

    def dies(run: RunDir) -> object:
        if next(calls) == 1:
            raise SystemExit(137)
        return whole(run)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "fill", dies)
        matrix.run("submit", "demo.yaml")
    said = matrix.run("submit", "demo.yaml", "--set", "train.learning_rate=1e-3").out
    assert "run demo-seed-1-small: goes on, of a submit that was killed and whose recipes were others\n" in said
    assert sorted(states(matrix)) == [
        "demo-seed-1-small",
        "demo-seed-1-small-2",
        "demo-seed-1-usual",
        "demo-seed-2-small",
        "demo-seed-2-usual",
    ]


def test_a_slurm_that_takes_none_leaves_no_run(matrix: Desk) -> None:
    matrix.program("sbatch", "echo sbatch: error: it is closed >&2; exit 1")
    answer = matrix.run("submit", "demo.yaml")
    assert answer.code == 2 and "it is closed" in answer.err
    assert states(matrix) == {}


def test_the_disk_must_have_room_for_all_at_once(matrix: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcft.launch.plan.count_parameters", lambda folder: 1_000_000)
    monkeypatch.setattr("hpcft.launch.room.free_bytes", lambda folder: 100_000_000)
    assert matrix.faults() == [
        "demo.yaml:13: the 4 runs take 160.0 MB, and 100.0 MB are free in runs. "
        "Keep fewer with train.keep_checkpoints, or name another folder with --runs."
    ]


def test_a_run_that_waits_says_so_and_is_undone_by_cancel(desk: Desk) -> None:
    run = make_run(desk.folder / "runs")
    (run.path / "queued.json").unlink()
    run.waiting_file.touch()
    shown = desk.run("status", "demo", "--runs", "runs").out
    assert "waiting" in shown and "waits until another run of its matrix ends" in " ".join(shown.split())


def test_fetch_brings_each_model_of_a_matrix_once(desk: Desk) -> None:
    grid = "matrix: {model.path: [owner/one, owner/two], train.seed: [1, 2]}\n"
    desk.write("demo.yaml", (desk.folder / "demo.yaml").read_text() + grid)
    assert [want.model.path for want in wanted(Path("demo.yaml"), (), None)] == ["owner/one", "owner/two"]


def test_the_plans_of_a_matrix_ask_slurm_once(matrix: Desk) -> None:
    matrix.program("sinfo", f"echo asked >> {matrix.folder}/asked; exit 1")
    make_plans(Path("demo.yaml"), (), None)
    assert (matrix.folder / "asked").read_text() == "asked\n"
