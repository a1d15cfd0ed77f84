"""Cluster files and submissions against a real Slurm that enforces accounts and limits: what it says, and refuses."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.conftest import need_slurm
from tests.slurm.lab import Lab, LabError, user_name
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
        eventually(lambda: "MaxSubmitJobs=6" in lab.run("scontrol", "show", "assoc_mgr"), seconds=10)
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


def test_what_no_node_could_ever_run_is_refused_before_the_queue(site: Site) -> None:
    """Held jobs are taken by Slurm whatever they ask for, and wait for ever once they are released."""
    gpus = ("resources.processes=null", "train.micro_batch_size=1")  # the env here has no CUDA, which is said too
    said = refusal(site, *gpus, "resources.gpus=1", gpu_request="gres=gpu:A100:{gpus}").splitlines()
    no_such = 'gpu_request = "gres=gpu:A100:{gpus}": its nodes have no GPU of this type. Did you mean "V100"?'
    assert f"hpcft: other.yaml:2: {no_such}" in said
    said = refusal(site, *gpus, "resources.gpus=4", gpus_per_node=8, cpus_per_node=None, cpus_per_gpu=None).splitlines()
    assert "hpcft: --set resources.gpus: resources.gpus = 4: the nodes there have 2. Ask for 2 at most." in said
    assert refusal(site, "resources.memory=900G") == (
        "--set resources.memory: each node would have to give 900G of memory, and has 244G. Ask for less."
    )
    assert refusal(site, "resources.cpus_per_process=30", cpus_per_node=None) == (
        "--set resources.cpus_per_process: resources.cpus_per_process = 30: 30 cores for the 1 process of a node, "
        "and those there have 24. Write 24 at most."
    )
    assert refusal(site, "resources.nodes=2") == (
        "--set resources.nodes: resources.nodes = 2: the partition has 1. Ask for 1 at most."
    )
    assert refusal(site, constraint="v100") == (
        'other.yaml:1: constraint = "v100": no node there has the feature v100. Remove it: they have none at all.'
    )


@pytest.mark.parametrize(
    ("overrides", "cluster", "words"),
    [
        (
            [],
            {"account": "fft"},
            'sbatch --account=fft: the account "fft" is not yours, or not for this partition. Did you mean "ft"? '
            "It stands in the recipe's resources or in the cluster's file.",
        ),
        (
            ["resources.qos=shrt"],
            {},
            'sbatch --qos=shrt: the qos "shrt" is not for you, or there is none. Did you mean "short"? '
            "It stands in the recipe's resources or in the cluster's file.",
        ),
        (
            ["resources.qos=short", "resources.walltime=0:10:00"],
            {},
            "sbatch --time=10: the qos allows no job that long (QOSMaxWallDurationPerJobLimit). "
            "Write a shorter resources.walltime: the chain goes on past it by itself.",
        ),
        (
            ["resources.partition=debug", "resources.walltime=1:00:00"],
            {},
            "sbatch --time=60: no job may be that long. Write a shorter resources.walltime: "
            "the chain goes on past it by itself.",
        ),
        (
            ["resources.queued=6"],
            {"max_submit": 20},
            "sbatch --account=ft: your association takes no more jobs in the queue (AssocMaxSubmitJobLimit). "
            "Wait until jobs have ended, or write a smaller resources.queued.",
        ),
        (
            [],
            {"reservation": "course"},
            'sbatch --reservation=course: there is no reservation "course". '
            "It stands in the recipe's resources or in the cluster's file.",
        ),
        (
            [],
            {"exclude": ["gpu9"]},
            'sbatch --exclude=gpu9: there is no node "gpu9". '
            "It stands in the recipe's resources or in the cluster's file.",
        ),
        (
            [],
            {"options": {"gres": "tpu:1"}},
            'sbatch --gres=tpu:1: this Slurm does not know "tpu:1". Mend gpu_request in the cluster\'s file: '
            "`hpcft cluster check`.",
        ),
    ],
)
def test_a_refusal_of_sbatchs_has_its_mend_and_leaves_nothing_behind(
    site: Site, overrides: list[str], cluster: dict[str, object], words: str
) -> None:
    assert refusal(site, *overrides, **cluster) == words


def test_check_agrees_with_a_true_file_and_names_what_is_not(site: Site) -> None:
    true = str(site.folder / "lab.yaml")
    assert site.hpcft("cluster", "check", true) == "lab agrees with Slurm.\n"
    wrong = {"max_walltime": "18:00:00", "max_submit": 20, "gpus_per_node": 4, "partition_walltime": "24:00:00"}
    wrong |= {"cpus_per_gpu": 6, "reservation": "course", "exclude": ["nosuch[1-2]"]}
    (site.folder / "wrong.yaml").write_text(yaml.safe_dump({"extends": "./lab.yaml", **wrong}, sort_keys=False))
    said = site.hpcft("cluster", "check", str(site.folder / "wrong.yaml"), code=2).replace(f"{site.folder}/", "")
    assert said.splitlines() == [
        "hpcft: wrong.yaml:4: gpus_per_node = 4: the nodes of GPU have 2. Write 2.",
        'hpcft: wrong.yaml:5: partition_walltime = "24:00:00": the partition GPU allows 18:00:00. Write "18:00:00".',
        'hpcft: wrong.yaml:2: max_walltime = "18:00:00": your association or qos allows 2:00:00. Write "2:00:00".',
        "hpcft: wrong.yaml:3: max_submit = 20: Slurm takes 6 jobs of yours. Write 6.",
        'hpcft: wrong.yaml:7: reservation = "course": Slurm has no such reservation. Remove it: there is none at all.',
        'hpcft: wrong.yaml:9: exclude = "nosuch[1-2]": Slurm has no node nosuch1, and sbatch would refuse every job. '
        "Remove it.",
    ]
    with pytest.raises(LabError, match="Invalid node name specified"):
        site.lab.run("sbatch", "--exclude=nosuch1", "--wrap=true")


def test_a_drafted_file_agrees_with_the_slurm_it_was_drafted_from(site: Site) -> None:
    new = site.folder / "new.yaml"
    site.hpcft("cluster", "init", "-o", str(new))
    assert yaml.safe_load(new.read_text())["gpu_request"] == "gres=gpu:V100:{gpus}"
    assert site.hpcft("cluster", "check", str(new)) == "new agrees with Slurm.\n"


def test_a_folder_and_an_env_with_a_shells_signs_in_their_names_work_as_any_other(strict: Lab, tmp_path: Path) -> None:
    signs = 'it\'s "$(touch hit)" `touch hit`; #&'
    python, seen = tmp_path / f"env {signs}/bin/python", tmp_path / "seen"
    python.parent.mkdir(parents=True)
    # This python answers what submit asks of an env; what Slurm starts in the end is only written down.
    python.write_text(
        f"""#!/bin/bash
case "$*" in
    *submitit.core._submit*) printf '%s\\0' "$0" "$@" "$PYTHONPATH" > {seen} ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
    )
    python.chmod(0o755)
    resources = {"walltime": "0:05:00", "queued": 1}
    values = {"env": str(python.parents[1]), "resources": resources}
    site = make_site(tmp_path / f"site {signs}", strict, values, **FILE, options={"mail-user": signs})
    run = site.submit()
    site.wait("the queue to be empty", lambda: seen.exists() and not queue(strict), 40)
    *words, folder, code, _ = seen.read_text().split("\0")
    assert words == [str(python), "-u", "-m", "submitit.core._submit"]
    assert folder in [str(run.path / f"jobs/00{number}") for number in (1, 2)]
    assert code == str(run.code)
    assert [path.name for path in (run.path / "jobs/001").glob("*_log.out")] == [f"{run.job(1).slurm_id}_0_log.out"]
    assert not list(tmp_path.rglob("hit"))
