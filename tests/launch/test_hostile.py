"""Values that a shell would act upon: refused, or passed on so that no shell ever reads them."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from hpcft.launch import local, slurm
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.submission import flags, make_submission
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Data, Model, Resources
from tests.desk import Desk

HOSTILE = ["a b", "it's", 'a"b', "$(touch hit)", "`touch hit`", "x; touch hit", "a\ntouch hit", "%j", "a\\b", "#", "-x"]
NAMES = ("partition", "account", "qos", "constraint", "reservation")
TEXTS = ("a b", "it's", 'a"b', "$(touch hit)", "`touch hit`", "x; touch hit", "#; é", "$HOME", "%j")
"""What is passed on as it is where any text may stand."""
STAND_IN = """#!/bin/bash
printf '%s\\0' "$0" "$@" "$PYTHONPATH" "$PATH" > "$(dirname "$0")/seen"
"""


def recipe(**resources: object) -> Recipe:
    data = Data(train="/t $(touch hit).jsonl")
    return Recipe(
        name="demo",
        task="corpus",
        model=Model(path="/m `touch hit`"),
        data=data,
        resources=Resources(walltime="1:00", **resources),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_slurms_in_a_cluster_file_are_refused_if_they_could_be_more(desk: Desk, text: str) -> None:
    quoted = json.dumps(text)
    lines = [f"{key}: {quoted}\n" for key in NAMES] + [f"exclude: [{quoted}]\n", f"gpu_request: {quoted}\n"]
    lines += [f"{key}: {quoted}\n" for key in ("memory_per_cpu", "quota", "max_walltime", "partition_walltime")]
    desk.write("bad.yaml", "kind: slurm\nruns: x\n" + "".join(lines) + f"options: {{{quoted}: x}}\n")
    faults = desk.faults("--cluster", "./bad.yaml")
    assert sorted(int(fault.split(":")[1]) for fault in faults) == [*range(3, 3 + len(lines)), 3 + len(lines)]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "#"])
@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "memory", "walltime"])
def test_names_of_slurms_in_a_recipe_are_refused_likewise(desk: Desk, key: str, text: str) -> None:
    (fault,) = desk.faults("--set", f"resources.{key}={json.dumps(text)}")
    assert fault.startswith(f"--set resources.{key}: resources.{key} = ")
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("text", "taken"), [*((text, True) for text in TEXTS), ("a\ntouch hit", False), ("a\\b", False)]
)
def test_the_value_of_an_option_is_passed_on_or_refused(desk: Desk, text: str, taken: bool) -> None:
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + f"options: {{mail-user: {json.dumps(text)}}}\n")
    if taken:
        assert f"#SBATCH --mail-user={shlex.quote(text)}\n" in desk.accepts()
        return
    (fault,) = desk.faults()
    assert fault.startswith("site.yaml:12: options.mail-user = ")
    assert fault.endswith(" cannot be passed on. Remove its line breaks and backslashes.")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("r%j", 'no jobs can run in a folder with "%" in its path: '
                "Slurm and submitit put job numbers in the place of words with it."),
        ("r:s", 'no jobs can run in a folder with ":" in its path: it divides the folders of PYTHONPATH.'),
        ("r\\s", 'no jobs can run in a folder with "\\" in its path: sbatch drops it.'),
        ("r\ns", "no jobs can run in a folder with a line break in its path."),
    ],
)  # fmt: skip
def test_a_folder_of_runs_that_slurm_would_misread_is_refused(desk: Desk, runs: str, message: str) -> None:
    (fault,) = desk.faults("--runs", runs)
    shown = runs.replace("\n", "\\n")
    assert fault == f"{shown}: {message} Name another folder with --runs or HPCFT_RUNS."


@pytest.mark.parametrize("text", [text for text in TEXTS if text != "%j"])
@pytest.mark.parametrize("kind", ["slurm", "local"])
def test_the_script_really_run_by_bash_starts_just_this_python_with_just_these_words(
    tmp_path: Path, text: str, kind: str
) -> None:
    prefix, run = tmp_path / f"env {text}", RunDir(tmp_path / f"runs {text}" / "demo")
    python = prefix / "bin/python"
    python.parent.mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/x $(touch hit).sh").write_text("export ACTIVATED=yes\n")
    python.write_text(STAND_IN)
    python.chmod(0o755)
    cluster = Cluster(name="x", kind=kind, runs="x", options={"mail-user": text})  # type: ignore[arg-type]
    submission = make_submission(run, 1, (), recipe(gpus=0), cluster, Env(prefix))
    script = tmp_path / "script"
    script.write_text(local.script(submission) if kind == "local" else slurm.script(submission))
    words = ["-u", "-m", "submitit.core._submit", str(submission.folder)]
    given = words if kind == "local" else []
    subprocess.run(["bash", "-eu", script, *given], cwd=tmp_path, check=True, capture_output=True)
    seen = (python.parent / "seen").read_text().split("\0")
    assert seen[:5] == [str(python), *words]
    assert seen[5] == str(run.code)
    assert seen[6].startswith(f"{prefix}/bin:")
    assert not list(tmp_path.rglob("hit")), "a shell has run it"


def test_the_arguments_of_srun_are_words_and_no_shell() -> None:
    assert flags({"mail-user": "$(touch hit) x"}) == ["--mail-user=$(touch hit) x"]
