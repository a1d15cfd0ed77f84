"""The table of `hpcft env check`: what a probe found, held against the cluster's file, each fault with its mend."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hpcft
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.envcheck import MARK, Row, env_rows, import_rows, probe_command, torch_rows
from hpcft.launch.envfile import read_env_file
from hpcft.sections import Resources
from tests.standins import make_venv, put

ENV = Env(Path("/e"))
PIP = "Run `/e/bin/python -m pip install"
V100 = {"name": "Tesla V100-SXM2-32GB", "arch": "sm_70", "memory": 34_072_559_616, "fault": None, "bf16": False}


def site(**values: Any) -> Cluster:
    """A cluster of V100s."""
    orfeo = {"gpu_request": "gres=gpu:V100:{gpus}", "gpus_per_node": 2, "gpu_arch": "sm_70", "gpu_memory": 32.0}
    return Cluster(name="site", kind="slurm", runs="/r", **{**orfeo, "bf16": False, **values})


def found(archs: str, *cards: dict[str, Any], cuda: str | None = "12.8", nvcc: str | None = None) -> dict[str, Any]:
    """A probe's answer."""
    torch = {"version": "2.10.0", "cuda": cuda, "archs": archs.split(), "gpus": list(cards)}
    return {"host": "gpu1", "torch": torch, "nvcc": nvcc, "imports": {}}


def test_a_torch_that_fits_its_card_is_all_well() -> None:
    assert list(torch_rows(ENV, site(), found("sm_70 sm_80", V100, nvcc="12.4"))) == [
        Row("torch", "2.10.0, CUDA 12.8"),
        Row("GPU", "Tesla V100-SXM2-32GB, sm_70; torch for sm_70 sm_80", grave=False),
        Row("memory", "31.7 GiB", grave=False),
        Row("bf16", "no", grave=False),
        Row("nvcc", "12.4", grave=False),
    ]


def faults(cluster: Cluster, answer: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    return [(row.what, row.fault, row.mend, row.grave) for row in torch_rows(ENV, cluster, answer) if row.fault]


def test_a_torch_that_is_not_built_for_its_card_is_grave() -> None:
    blind = {**V100, "fault": "RuntimeError: no kernel image is available"}
    mend = f"{PIP} 'torch==2.10.*'`."
    assert faults(site(), found("sm_75 sm_80", blind)) == [("GPU", "torch is not built for sm_70", mend, True)]
    cuda = f"{PIP} --force-reinstall 'torch==2.10.*'`, or check a recipe with `gpus: 0`."
    cpu = ("torch", "a build without CUDA", cuda, True)
    assert faults(site(), found("", cuda=None)) == [cpu]
    driver = "`nvidia-smi` there shows the driver; torch is for CUDA 12.8."
    assert faults(site(), found("sm_70")) == [("GPU", "torch sees none on a node that has some", driver, True)]
    broken = {**V100, "fault": "RuntimeError: ECC error"}
    assert faults(site(), found("sm_70", broken)) == [("GPU", "RuntimeError: ECC error", "", True)]


def test_for_a_recipe_without_gpus_torch_needs_no_cuda_and_the_probe_no_gpu() -> None:
    asked = Resources(gpus=0, account="lab", partition="CPU")
    rows = [Row("torch", "2.10.0, CUDA none"), Row("GPU", "none")]
    assert list(torch_rows(ENV, site(), found("", cuda=None), asked)) == rows
    command = probe_command(ENV, site(partition="GPU", account="mine"), asked)
    flags = ["--account=lab", "--nodes=1", "--ntasks=1", "--partition=CPU", "--time=0:10:00"]
    assert command[1:-3] == [*flags, "--job-name=hpcft-env-check"]
    assert "--gres=gpu:V100:1" in probe_command(ENV, site(), Resources(gpus=4, nodes=2))


def test_a_cluster_file_that_says_otherwise_and_a_foreign_nvcc_are_said_and_not_grave() -> None:
    wrong = site(gpu_arch="sm_80", gpu_memory=40.0, bf16=True)
    assert faults(wrong, found("sm_70 sm_80", V100, nvcc="11.8")) == [
        ("GPU", "the file of site says sm_80", "Correct gpu_arch there.", False),
        ("memory", "the file of site says 40 GiB", "Correct gpu_memory there.", False),
        ("bf16", "the file of site says that it has", "Write `bf16: false` there.", False),
        (
            "nvcc",
            "torch is for CUDA 12.8: extensions cannot be compiled",
            "Load a CUDA 12 module in the cluster's `setup`.",
            False,
        ),
    ]


def test_imports_have_their_seconds_and_slow_ones_a_mend() -> None:
    imports = {
        "torch": {"seconds": 50.0, "version": "2.10.0"},
        "transformers": {"seconds": None, "fault": "ImportError: tokenizers>=0.22 is required"},
        "accelerate": {"seconds": None, "fault": "missing"},
        "datasets": {"seconds": None, "fault": "missing"},
        "pandas": {"seconds": 20.0, "version": "3.0"},
    }
    whole = "Run `/e/bin/python -c 'import transformers'` to see all of it."
    slow = "Put the env on another file system, or on the node's own disk."
    assert list(import_rows(ENV, {"host": "gpu1", "imports": imports})) == [
        Row("torch", "2.10.0, imported in 50.0 s"),
        Row("transformers", "broken", "ImportError: tokenizers>=0.22 is required", whole),
        Row("accelerate", "missing", "training needs it", f"{PIP} accelerate`."),
        Row("pandas", "3.0, imported in 20.0 s"),
        Row("imports", "70.0 s on gpu1", "at the start of every job", slow, grave=False),
    ]


def test_versions_are_held_against_the_lock_and_those_that_decide_bits_are_grave(tmp_path: Path) -> None:
    file = tmp_path / "ft.yml"
    file.write_text("dependencies: [python=3.11]\n")
    (tmp_path / "ft.lock").mkdir()
    env = Env(Path("/e"), read_env_file(file, "x"))
    facts = {"python": "3.11.7", "missing": [], "packages": {"torch": "2.10.0", "rich": "15.0", "more": "1.0"}}

    def lock(*lines: str) -> Row:
        (tmp_path / "ft.lock/pip.txt").write_text("# python 3.11.7\n" + "".join(f"{line}\n" for line in lines))
        return list(env_rows(env, facts))[-1]

    mend = f"Make it anew, or `hpcft env lock {file}`."
    assert lock("torch==2.10.0", "rich==15.0") == Row("lock", "as ft.lock")
    assert lock("rich==14.0") == Row("lock", "1 differ", "rich 14.0 -> 15.0", mend, grave=False)
    both = "torch 2.9.0 -> 2.10.0; rich 14.0 -> 15.0"
    assert lock("rich==14.0", "torch==2.9.0") == Row("lock", "2 differ", both, mend)


def test_the_probe_runs_as_a_job_would_with_the_options_of_a_short_one() -> None:
    cluster = site(partition="GPU", setup=("module load cuda",), debug_options={"partition": "debug"})
    command = probe_command(ENV, cluster)
    flags = ["--gres=gpu:V100:1", "--nodes=1", "--ntasks=1", "--partition=debug", "--time=0:10:00"]
    assert command[:-1] == ["srun", *flags, "--job-name=hpcft-env-check", "bash", "-c"]
    lines = command[-1].splitlines()
    assert lines[0] == "module load cuda" and lines[-1].startswith("exec /e/bin/python /")
    assert "export PATH=/e/bin:$PATH" in lines
    here = probe_command(ENV, cluster.model_copy(update={"kind": "local"}))
    assert here[:2] == ["bash", "-c"]


def test_the_probe_tries_the_packages_of_the_env_and_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, bare = tmp_path / "ours", make_venv(tmp_path / "bare", more=False)
    for name in ("pandas", "peft"):  # as pip installs hpcft: beside all other packages
        (ours / name).mkdir(parents=True)
        (ours / name / "__init__.py").write_text("__version__ = 'ours'\n")
    (ours / "hpcft").symlink_to(Path(hpcft.__file__).parent)
    monkeypatch.setattr(hpcft, "__file__", str(ours / "hpcft/__init__.py"))
    put(bare, "peft", "0.1")
    command = probe_command(Env(bare), Cluster(name="local", kind="local", runs="/r"))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ours)})
    imports = json.loads(done.stdout.partition(MARK)[2])["imports"]
    assert (imports["pandas"]["fault"], imports["peft"]["version"]) == ("missing", "0.1")
