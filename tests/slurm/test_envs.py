"""Environments on a real Slurm: tried on a node, and watched from job to job."""

from __future__ import annotations

import json
from pathlib import Path

from tests.slurm.lab import Lab
from tests.slurm.runs import is_training, leaves_nothing, make_site
from tests.standins import make_venv, put


def test_an_env_is_tried_on_a_node_and_what_changes_in_it_later_is_said(slurm: Lab, tmp_path: Path) -> None:
    site = make_site(tmp_path, slurm, debug_options={"partition": "debug"}, setup=["export FROM_THE_CLUSTER=1"])
    env = make_venv(tmp_path / "env")
    said = site.hpcft("env", "check", str(env), "--cluster", str(tmp_path / "lab.yaml"))
    assert " s on gpu" in said and "imported in" in said and "importing transformers" in said
    assert site.lab.run("sacct", "-X", "-n", "-P", "-o", "JobName,Partition,State").splitlines()[-1] == (
        "hpcft-env-check|debug|COMPLETED"
    )
    run = site.submit(f"env={env}")
    site.wait("job 1 to train", lambda: is_training(run.job(1)) and (run.path / "env.json").exists(), 90)
    record = json.loads((run.path / "env.json").read_text())
    assert record["prefix"] == str(env) and any(line.startswith("torch==") for line in record["pip"])
    site.hpcft("stop", run.name)
    assert leaves_nothing(site.lab, run)
    put(env, "nvidia_other", "1.0")
    put(env, "unimportant", "2.0")
    warning = "the env has changed since job 1, which may give other bits: nvidia-other none -> 1.0; 1 other."
    assert f"tiny: warning: {warning}\n" in site.hpcft("resume", run.name)
    job = next(job for job in run.jobs() if not job.ended)
    site.wait("the next job to train", lambda: (job.path / "env.json").exists(), 90)
    changed = json.loads((job.path / "env.json").read_text())
    assert changed == {"changes": ["nvidia-other none -> 1.0", "unimportant none -> 2.0"]}
    site.hpcft("cancel", run.name)
    assert leaves_nothing(site.lab, run)
    assert f"hpcft: {warning}\n" in site.hpcft("logs", run.name)


def test_an_env_in_which_jobs_would_fail_is_told_by_the_exit_code(slurm: Lab, tmp_path: Path) -> None:
    site = make_site(tmp_path, slurm)
    env = make_venv(tmp_path / "env", more=False)
    said = site.hpcft("env", "check", str(env), "--cluster", str(tmp_path / "lab.yaml"), code=1)
    assert "hpcft's needs: no submitit, pydantic, PyYAML. Install hpcft there.\n" in said
    assert f"torch: training needs it. Run `{env}/bin/python -m pip install torch`.\n" in said
