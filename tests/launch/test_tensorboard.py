"""TensorBoard in a job: what Slurm is asked for, and what keeps it from being asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcft.disk import read_json, write_json
from hpcft.launch.tensorboard import Place, find_place
from hpcft.rundir import RunDir
from tests.desk import Desk, make_desk, own_env
from tests.test_cli import make_run


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


def on_slurm(desk: Desk, name: str, time: float, resources: dict[str, Any], **cluster: Any) -> RunDir:
    """A run that was submitted then, to a cluster like this."""
    run = make_run(desk, name)
    site = {"name": "site", "kind": "slurm", "runs": "x", "partition": "GPU", "account": "ours", **cluster}
    write_json(run.path / "submission.json", {"cluster": site, "env": str(own_env()), "time": time})
    write_json(run.path / "recipe.json", {**(read_json(run.path / "recipe.json") or {}), "resources": resources})
    return run


def options(run: RunDir, walltime: str | None = None) -> dict[str, str]:
    return find_place([run], None, walltime, []).options


def test_it_is_a_small_job_where_the_runs_jobs_run_or_where_the_cluster_says(desk: Desk) -> None:
    small = {"nodes": "1", "ntasks": "1", "cpus-per-task": "2"}
    many = {"gpus": 2, "nodes": 2, "memory": "60G", "qos": "long", "constraint": "v100"}
    rules = {"gpus_per_node": 2, "gpu_request": "gres=gpu:{gpus}", "memory_per_gpu": "60G", "exclude": ["gpu3"]}
    run = on_slurm(desk, "demo", 1, many, **rules, max_walltime="1:00:00", debug_options={"partition": "debug"})
    there = {"partition": "GPU", "account": "ours", "qos": "long", "constraint": "v100", "exclude": "gpu3"}
    assert options(run) == {**small, **there, "time": "1:00:00"}
    assert options(run, "0:10:00") == {**small, **there, "time": "0:10:00"}
    own = {"partition": "serial", "time": "4:00:00", "mem": "4G"}
    run = on_slurm(desk, "other", 1, {**many, "account": "theirs"}, **rules, tensorboard_options=own)
    assert options(run) == {**small, "account": "theirs", **own}
    assert options(run, "0:10:00") == {**small, "account": "theirs", **own, "time": "0:10:00"}


def test_it_runs_in_the_env_and_with_the_setup_of_the_newest_run(desk: Desk) -> None:
    runs = [on_slurm(desk, name, time, {}, setup=[f"echo {name}"]) for name, time in (("a", 3), ("b", 4), ("c", 2))]
    place: Place = find_place(runs, None, None, ["/the runs", "ada@login", "", "a"])
    *srun, bash, flag, script = place.command
    assert srun[0] == "srun" and srun[-1] == "--job-name=hpcft-tensorboard" and (bash, flag) == ("bash", "-c")
    lines = script.splitlines()
    assert lines[0] == "echo b"
    assert lines[-1].startswith(f"exec {own_env()}/bin/python -c ")
    assert lines[-1].endswith(" '/the runs' ada@login '' a")


def test_what_it_cannot_be_started_with(desk: Desk) -> None:
    make_run(desk, "demo")
    beside = ["--walltime: goes with --on-node. Add it, or leave this out.",
              "--cluster: goes with --on-node. Add it, or leave this out."]  # fmt: skip
    faults = [*beside, '--walltime: "2h" is no walltime. Write hours:minutes:seconds, as 2:00:00.']
    words = ("--runs", "runs", "--walltime", "2h", "--cluster", "x")
    assert desk.faults(*words, verb="tensorboard", recipe="demo") == faults
    assert desk.faults("--runs", "runs", "--on-node", verb="tensorboard", recipe="demo") == [
        "demo: its env has no python any more: /e/bin/python. Make it again there.",
        "--on-node: demo ran on this machine, and not as a job of Slurm."
        " Leave it out, or name a cluster with --cluster.",
    ]


def test_a_job_that_slurm_refuses_is_said_with_what_may_be_changed(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    on_slurm(desk, "demo", 1, {})
    desk.program("srun", "echo srun: error: Invalid account >&2; exit 1")
    desk.patch.setenv("PATH", f"{desk.folder}/bin:/usr/bin:/bin")
    said = desk.run("tensorboard", "demo", "--runs", "runs", "--on-node")
    asks = "asks Slurm for a node: --account=ours --cpus-per-task=2 --nodes=1 --ntasks=1 --partition=GPU --time=2:00:00"
    assert (said.code, said.out) == (2, f"{asks} --job-name=hpcft-tensorboard\n")
    assert capfd.readouterr().err == "srun: error: Invalid account\n"
    what = "its job came to nothing; why, stands above."
    fix = "What it asks for stands in the cluster's file: `tensorboard_options`."
    assert said.err == f"hpcft: cluster site: {what} {fix}\n"
