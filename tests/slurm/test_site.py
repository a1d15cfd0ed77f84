"""Cluster files and submissions against a real Slurm that enforces accounts and limits: what it says, and refuses."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.conftest import need_slurm
from tests.slurm.lab import Lab, user_name
from tests.slurm.processes import eventually
from tests.slurm.runs import Site, make_site, queue

ENFORCED = "AccountingStorageEnforce=associations,limits,qos\nEnforcePartLimits=ALL\n"
FILE = {
    "gpu_request": "gres=gpu:V100:{gpus}",
    "cpus_per_node": 24,
    "cpus_per_gpu": 12,
    "memory_per_gpu": "100G",
    "partition_walltime": "18:00:00",
    "max_walltime": "2:00:00",
    "max_submit": 6,
    "account": "ft",
    "qos": "normal",
}
"""A cluster file that says of this Slurm what is true."""


@pytest.fixture(scope="module")
def strict() -> Iterator[Lab]:
    """A Slurm of one node whose user may bill `ft`, for two hours and six jobs at most."""
    need_slurm()
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    lab = Lab(folder, nodes=1, settings=ENFORCED, dies_with_parent=True)
    try:
        lab.start()
        lab.run("sacctmgr", "-iQ", "add", "qos", "short", "MaxWall=5", "Flags=DenyOnLimit")
        limits = ("MaxWall=120", "MaxSubmit=6", "qos=normal,short")
        lab.run("sacctmgr", "-iQ", "modify", "user", user_name(), "where", "account=ft", "set", *limits)
        eventually(lambda: "MaxSubmitJobs=6" in lab.run("scontrol", "show", "assoc_mgr").replace("(0)", ""), seconds=10)
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def site(strict: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), strict, **FILE)


def refusal(site: Site, *overrides: str, **cluster: object) -> str:
    """What a submit is refused for; nothing is left of it, neither on disk nor in the queue."""
    file = site.folder / "other.yaml"
    file.write_text(yaml.safe_dump({"extends": "./lab.yaml", **cluster}))
    before = sorted(site.runs.iterdir()) if site.runs.exists() else []
    given = [f"--set={text}" for text in overrides]
    said = site.hpcft("submit", str(site.recipe), "--cluster", str(file), *given, code=2)
    assert (sorted(site.runs.iterdir()) if site.runs.exists() else []) == before
    assert queue(site.lab) == {}
    return said.replace(f"{site.folder}/", "").removeprefix("hpcft: ").rstrip("\n")


def test_a_typo_in_the_partition_is_refused_with_the_nearest_name(site: Site) -> None:
    assert refusal(site, partition="GPUU") == (
        'other.yaml:2: partition = "GPUU": Slurm has no such partition. Did you mean "GPU"?'
    )
    assert refusal(site, "resources.partition=debugg") == (
        '--set resources.partition: resources.partition = "debugg": Slurm has no such partition. Did you mean "debug"?'
    )
