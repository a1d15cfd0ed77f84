"""An env that cannot train is refused before anything is queued, with the line to type about it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas
import pytest

from hpcft.launch.envfit import runs_on, volta_build
from tests.desk import Desk
from tests.standins import PACKAGES, make_venv, put, put_torch

PIP = "Run `env/bin/python -m pip install"
NO_KERNEL = "which is not built for sm_70, site's V100: its jobs would end in `no kernel image`."


def env(desk: Desk, *, more: bool = True) -> Path:
    """A virtual environment in the folder, named in the recipe; the cluster's cards are Voltas."""
    desk.change("model:\n", "env: ./env\nmodel:\n")
    desk.change("gpu: V100\n", "gpu: V100\ngpu_arch: sm_70\n", "site.yaml")
    return make_venv(desk.folder / "env", more=more)


def fill(prefix: Path, *but: str) -> None:
    """Put packages there that say that they are what a job needs."""
    for name in ("submitit", "pydantic", "yaml", "transformers", "safetensors", "numpy", "tensorboard", "accelerate"):
        if name not in but:
            put(prefix, name, "1.0")


def broken(desk: Desk, prefix: Path, script: str) -> None:
    """Put a shell script in the place of an env's python."""
    (prefix / "bin/python").unlink()
    desk.write("env/bin/python", f"#!/bin/sh\n{script}\n").chmod(0o755)


def test_an_env_that_lacks_torch_is_refused_with_the_torch_that_the_card_needs(desk: Desk) -> None:
    prefix = env(desk, more=False)
    fill(prefix, "accelerate")
    lacks = "demo.yaml:4: the env env has no torch, accelerate, which training needs."
    assert desk.faults() == [f"{lacks} {PIP} 'torch==2.10.*' accelerate`."]
    put_torch(prefix, "2.10.0+cu128", "12.8")
    put(prefix, "accelerate", "1.15.0")
    assert "# env          env\n" in desk.accepts()
    desk.write("train.parquet", pandas.DataFrame([{"text": "hi", "label": "glad"}]).to_parquet())
    lacks = "demo.yaml:4: the env env has no pyarrow, which training needs."
    assert desk.faults("--set", "data.train=train.parquet") == [f"{lacks} {PIP} pyarrow`."]


def test_an_env_without_what_the_batch_process_imports_is_refused(desk: Desk) -> None:
    prefix = env(desk, more=False)
    put(prefix, "pydantic", "2.0")
    hpcft, rest = desk.faults()
    assert hpcft == "demo.yaml:4: the env env has no submitit, yaml, which every job needs. Install hpcft there."
    assert rest.startswith("demo.yaml:4: the env env has no torch, transformers, accelerate, safetensors,")


@pytest.mark.parametrize(
    ("version", "cuda", "taken"),
    [
        ("2.10.0+cu128", "12.8", True),
        ("2.11.0+cu128", "12.8", False),  # its cuDNN has no Volta
        ("2.7.1+cu128", "12.8", False),
        ("2.14.1+cu126", "12.6", True),
        ("2.12.1+cu130", "13.0", False),
        ("2.15.0+cu126", "12.6", True),  # nobody knows: nothing is said
    ],
)
def test_a_wheel_without_the_cards_architecture_is_refused(desk: Desk, version: str, cuda: str, taken: bool) -> None:
    put_torch(env(desk), version, cuda)
    if taken:
        desk.accepts()
    else:
        has = f"demo.yaml:4: the env env has torch {version}, {NO_KERNEL}"
        assert desk.faults() == [f"{has} {PIP} 'torch==2.10.*'`."]


def test_what_a_check_has_found_counts_more_than_the_table(desk: Desk) -> None:
    prefix = env(desk, more=False)
    fill(prefix)
    desk.patch.setenv("PATH", f"{desk.folder}/bin:/usr/bin:/bin")
    put_torch(prefix, "2.99.0+ours", "12.8", "sm_75 sm_80 compute_90", installer="conda")
    desk.accepts()  # a build that nobody has looked at
    said = desk.run("env", "check", str(prefix), "--cluster", "./here.yaml")
    assert (said.code, "torch" in said.out) == (0, True), said
    record = json.loads(next((desk.folder / "home/.cache/hpcft/envs").iterdir()).read_text())
    assert record["found"]["torch"]["archs"] == ["sm_75", "sm_80", "compute_90"]
    has = f"demo.yaml:4: the env env has torch 2.99.0+ours, {NO_KERNEL}"
    assert desk.faults() == [f"{has} {PIP} 'torch==2.10.*'`."]
    subprocess.run(["sed", "-i", "s/ours/mine/", prefix / PACKAGES / "torch/version.py"], check=True)
    (prefix / PACKAGES / "new").mkdir()  # as an installation leaves it
    desk.accepts()  # what was found is about a torch that is gone


def test_a_torch_without_cuda_is_refused_where_gpus_are_asked_for(desk: Desk) -> None:
    put_torch(env(desk), "2.13.0+cpu", None)
    has = "demo.yaml:4: the env env has torch 2.13.0+cpu, a build without CUDA, and resources.gpus = 1."
    assert desk.faults() == [f"{has} {PIP} --force-reinstall 'torch==2.10.*'`, or write `gpus: 0`."]
    desk.accepts("--set", "resources.gpus=0", "--set", "resources.cpus_per_process=1")


def test_a_python_that_does_not_work_is_refused_with_its_own_words(desk: Desk) -> None:
    broken(desk, env(desk), "echo 'error: no libpython3.11.so.1.0' >&2; exit 127")
    said = "env/bin/python does not work: error: no libpython3.11.so.1.0. Make the env anew."
    assert desk.faults() == [f"demo.yaml:4: {said}"]


def test_a_python_that_is_too_old_is_refused(desk: Desk) -> None:
    facts = json.dumps({"python": "3.9.2", "packages": {}, "missing": ["torch"], "torch": None})
    broken(desk, env(desk), f"echo '{facts}'")
    old = "demo.yaml:4: the env env has python 3.9.2, and hpcft needs 3.11. Make it anew with `python=3.11`."
    assert desk.faults() == [old]


def test_code_runs_on_its_own_major_and_ptx_on_whatever_is_newer() -> None:
    assert runs_on(["sm_80"], "sm_86") and runs_on(["sm_90a"], "sm_90") and runs_on(["compute_80"], "sm_90")
    assert not runs_on(["sm_86"], "sm_80") and not runs_on(["sm_80"], "sm_90") and not runs_on(["compute_90"], "sm_70")
    assert not runs_on([], "sm_70")


def test_the_table_says_nothing_of_builds_that_nobody_has_looked_at() -> None:
    assert [volta_build(*pair) for pair in (("2.3.0", "12.1"), ("2.6.0", "12.4"), ("2.8.0", "12.9"))] == [True] * 3
    unknown = (
        (None, "12.8"),
        ("2.10.0", None),
        ("2.6.0", "12.8"),
        ("2.15.0", "12.6"),
        ("2.9.0", "12.9"),
        ("x", "12.1"),
    )
    assert [volta_build(*pair) for pair in unknown] == [None] * len(unknown)
