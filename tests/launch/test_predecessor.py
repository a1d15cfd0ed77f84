"""A model that another run has left: found by the run's name, kept by the new run, and refused where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.launch import predecessor
from hpcft.launch.chain import _with_own_files
from hpcft.launch.plan import make_plan
from hpcft.rundir import RunDir
from tests.desk import Desk


@pytest.fixture
def earlier(desk: Desk) -> RunDir:
    """A finished run, and a recipe that begins with its model."""
    run = RunDir(desk.folder / "runs" / "first-part")
    shutil.copytree(desk.folder / "model", run.final_model)
    (run.final_model / "model.safetensors").write_bytes(b"weights")
    write_json(run.path / "recipe.json", {})
    write_json(run.path / "finished.json", {"step": 10})
    desk.change("path: model", "path: run:first-part")
    return run


def test_the_model_of_a_run_is_found_by_its_name_and_kept_by_the_new_run(desk: Desk, earlier: RunDir) -> None:
    plan = make_plan(Path("demo.yaml"), (), None)
    assert plan.recipe.model.path == str(earlier.final_model)
    (desk.folder / "new").mkdir()
    recipe = _with_own_files(plan.recipe, desk.folder / "new", earlier.path.parent / "demo")
    assert recipe.model.path == str(earlier.path.parent / "demo" / predecessor.FOLDER)
    own = desk.folder / "new" / predecessor.FOLDER / "model.safetensors"
    assert own.stat().st_ino == (earlier.final_model / "model.safetensors").stat().st_ino
    shutil.rmtree(earlier.path)
    assert own.read_bytes() == b"weights"


def test_the_best_weights_of_a_run_are_a_model_to_begin_with_too(desk: Desk, earlier: RunDir) -> None:
    earlier.final_model.rename(earlier.best_model)
    (earlier.path / "finished.json").unlink()
    plan = make_plan(Path("demo.yaml"), ("model.path=run:first/best",), None)
    assert plan.recipe.model.path == str(earlier.best_model)


def test_a_run_that_has_left_no_model_is_refused_at_its_line(desk: Desk, earlier: RunDir) -> None:
    def faults(path: str) -> list[str]:
        return [fault.partition(": ")[2] for fault in desk.faults("--set", f"model.path={path}")]

    assert faults("run:first-part/best") == [
        "first-part has no best/. train.keep_best makes one at each better evaluation."
    ]
    assert faults("run:first-part/last") == [
        'model.path = "run:first-part/last": a run leaves no "last". Write run:first-part/best.'
    ]
    assert faults("run:second") == ['"second" no run of this name in runs. There: first-part.']
    (earlier.final_model / "config.json").rename(earlier.final_model / "adapter_config.json")
    assert desk.faults() == [
        "demo.yaml:5: first-part has left adapters, and no whole model. `hpcft export first-part FOLDER` makes one: "
        "name that folder."
    ]
    (earlier.path / "finished.json").unlink()
    assert desk.faults() == [
        "demo.yaml:5: first-part is not finished, and has left no model yet. Wait for it, or take a checkpoint with "
        "`hpcft export first-part FOLDER --checkpoint STEP`."
    ]
