"""Phases: one curve, a fresh optimizer and schedule for each, and no cut, wherever it falls, makes a difference."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hpcft.cli.looking import job_curves
from hpcft.curves.stitch import stitch
from hpcft.disk import read_json, write_json
from hpcft.rundir import RunDir
from hpcft.train.loop import PHASE_OVER
from tests.parts import write_rows
from tests.promise import Outcome, outcome
from tests.train.pieces import make_run, train_job

pytestmark = pytest.mark.slow

BORDER, STEPS = 6, 11
TAGS = ("train/loss", "validation/loss", "train/learning_rate", "train/phase", "train/gradient_norm")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of these tests have their model and rows."""
    return tmp_path_factory.mktemp("parts")


def make(parts: Path, path: Path, **second: Any) -> RunDir:
    """A run of two phases that differ in nearly everything; its curve has a point every four steps, and at borders."""
    write_rows(parts / "validation.jsonl", 8, seed=2)
    phases = [
        {"name": "full", "data": {"loss_on": "full"}, "train": {"steps": BORDER, "warmup_steps": 2}},
        {
            "name": "completion",
            "data": {"max_length": 120},
            "train": {"steps": STEPS - BORDER, "learning_rate": 5e-4, "batch_size": 6, "grouping": "plain", **second},
        },
    ]
    data = {"validation": str(parts / "validation.jsonl")}
    train = {"log_every": 4, "save_every": 2, "keep_best": True, "keep_checkpoints": 9}
    run = make_run(parts, path, train, data=data, evaluate={"every": 3}, phases=phases)
    for number in range(1, 9):
        run.job(number).path.mkdir(parents=True)
        write_json(run.job(number).path / "submitted.json", {"slurm_id": str(number), "walltime": 3600})
    return run


def whole_outcome(run: RunDir) -> tuple[Outcome, dict[str, Any], str, dict[str, Any]]:
    """What two runs must have in common: final weights, every curve, the best model, and the last checkpoint."""
    stitched = stitch(job_curves(run))
    curves = {tag: (stitched.curve(tag).steps.tolist(), stitched.curve(tag).values.tolist()) for tag in TAGS}
    best = hashlib.sha256((run.best_model / "model.safetensors").read_bytes()).hexdigest()
    folder = run.checkpoints / f"step-{STEPS:08d}"
    tensors = {name: load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer")}
    sums = {f"{file}/{name}": tensor.numpy().tobytes() for file in tensors for name, tensor in tensors[file].items()}
    position = json.loads((folder / "state.json").read_text())["position"]
    return (
        outcome(run),
        curves,
        best,
        {**position, "tensors": hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()},
    )


@pytest.fixture(scope="module")
def uncut(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make(parts, tmp_path_factory.mktemp("uncut") / "run")
    assert train_job(run, 1) == "finished"
    return run


@pytest.mark.parametrize("cuts", [(3,), (BORDER - 1,), (BORDER,), (BORDER + 1,), (2, BORDER, BORDER, 9)], ids=str)
def test_a_cut_before_at_or_behind_the_border_of_phases_makes_no_difference(
    parts: Path, uncut: RunDir, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    run = make(parts, tmp_path / "run")
    for number, cut in enumerate(cuts, 1):
        assert train_job(run, number, cut) == "stopped"
        assert run.saved_steps()[-1] == cut
    assert train_job(run, len(cuts) + 1) == "finished"
    assert whole_outcome(run) == whole_outcome(uncut)


def test_a_job_that_dies_between_two_phases_makes_no_difference(parts: Path, uncut: RunDir, tmp_path: Path) -> None:
    run = make(parts, tmp_path / "run")
    assert train_job(run, 1, phases=1) == PHASE_OVER
    assert [phase["over"] for phase in run.phases] == [True, False]
    assert train_job(run, 2) == "finished"
    assert whole_outcome(run) == whole_outcome(uncut)
    assert (run.job(2).resumed or {})["step"] == BORDER


def test_a_border_whose_checkpoint_is_damaged_is_reached_again_from_the_one_before(
    parts: Path, uncut: RunDir, tmp_path: Path
) -> None:
    run = make(parts, tmp_path / "run")
    assert train_job(run, 1, phases=1) == PHASE_OVER
    (run.checkpoints / f"step-{BORDER:08d}" / "model.safetensors").write_bytes(b"gone")
    assert train_job(run, 2) == "finished"
    assert (run.job(2).resumed or {})["step"] < BORDER
    assert whole_outcome(run) == whole_outcome(uncut)


def test_each_phase_has_its_own_loss_rows_and_schedule_in_one_curve(uncut: RunDir) -> None:
    curve = {tag: stitch(job_curves(uncut)).curve(tag) for tag in TAGS}
    assert curve["train/loss"].steps.tolist() == [4, BORDER, 8, STEPS]
    assert curve["train/phase"].values.tolist() == [1, 1, 2, 2]
    # Of step 3 of 6 from 1e-3 behind a warm-up of 2, of the last one; of step 1 of 5 from 5e-4, of the last one.
    assert curve["train/learning_rate"].values.tolist() == pytest.approx([7.5e-4, 2.5e-4, 4e-4, 1e-4])
    assert curve["validation/loss"].steps.tolist() == [0, 3, 6, 9, 11]
    assert sorted(path.name for path in uncut.features.iterdir()) == ["completion", "full"]
    known = [{key: phase[key] for key in ("name", "begins", "ends")} for phase in uncut.phases]
    assert known == [
        {"name": "full", "begins": 0, "ends": BORDER},
        {"name": "completion", "begins": BORDER, "ends": STEPS},
    ]


def test_a_phase_begins_with_a_fresh_optimizer_and_its_own_best(parts: Path, tmp_path: Path) -> None:
    run = make(parts, tmp_path / "run")
    assert train_job(run, 1, BORDER + 1) == "stopped"
    folder = run.checkpoints / f"step-{BORDER + 1:08d}"
    optimizer = load_file(folder / "optimizer.safetensors")
    steps = {float(tensor) for name, tensor in optimizer.items() if name.startswith("step/")}
    assert steps == {1.0}, "moments of the phase before are still there"
    position = json.loads((folder / "state.json").read_text())["position"]
    assert (position["phase"], position["best"], position["best_step"]) == (1, None, -1)
    before = json.loads((run.checkpoints / f"step-{BORDER:08d}" / "state.json").read_text())["position"]
    assert before["phase"] == 0 and before["best"] is not None
    assert (read_json(run.best_model / "best.json") or {})["step"] in (3, BORDER)


def test_phases_on_the_same_data_share_their_features_and_have_one_best_in_different_orders(
    parts: Path, tmp_path: Path
) -> None:
    phases = [{"name": "fast", "train": {"epochs": 0.2}}, {"name": "slow", "train": {"epochs": 0.1}}]
    run = make_run(parts, tmp_path / "run", {"steps": None, "learning_rate": 1e-4}, phases=phases)
    assert train_job(run, 1) == "finished"
    assert [path.name for path in run.features.iterdir()] == ["fast"]
    assert [(phase["begins"], phase["ends"]) for phase in run.phases] == [(0, 3), (3, 5)]
    assert run.total_steps() == 5
