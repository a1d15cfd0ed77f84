"""Models of the hub: brought into the cluster's cache by one command, and missed before the queue, not in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hpcft
from hpcft.errors import UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env
from hpcft.launch.fetch import Wanted, fetch
from hpcft.launch.hub import hub_cache, hub_variables, lacks, snapshot
from hpcft.sections import Model
from tests.desk import Desk
from tests.hub import Hub, serving
from tests.standins import make_venv

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}
MODEL = ("--set", "model.path=owner/tiny")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub; what this machine has set of its own for one is left out."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_"))]:
        monkeypatch.delenv(name)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as some have it in their .bashrc
        yield hub


def cluster(**values: object) -> Cluster:
    return Cluster(name="site", kind="slurm", runs="runs", **values)  # type: ignore[arg-type]


def offline(desk: Desk) -> None:
    """Take the internet from the desk's nodes, and give them a cache."""
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + f"internet: false\ncache: {desk.folder}/cache\n")


def test_a_model_that_nodes_could_not_load_is_refused_with_the_command_that_brings_it(desk: Desk, hub: Hub) -> None:
    offline(desk)
    commit = hub.push("owner/tiny", FILES)
    absent = "--set model.path: owner/tiny is not in cache/hub, and nodes of site do not reach the hub. "
    command = ["fetch", "demo.yaml", *MODEL]
    assert desk.faults(*MODEL) == [f"{absent}`hpcft {' '.join(command)}` brings it."]
    folder = f"cache/hub/models--owner--tiny/snapshots/{commit}"
    answer = desk.run(*command)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"owner/tiny at main: 3 files, 0.0 MB, commit {commit}, in {folder}\n"
    assert "# model        owner/tiny (hub id)\n" in desk.accepts(*MODEL)
    assert list((desk.folder / "home").iterdir()) == []
    (desk.folder / folder / "tokenizer.json").unlink()
    assert desk.faults(*MODEL) == [
        "--set model.path: owner/tiny is not whole in cache/hub (tokenizer missing), and nodes of site do not reach "
        f"the hub. `hpcft {' '.join(command)}` brings it."
    ]
    assert desk.run(*command).code == 0
    assert "owner/tiny at v2 is not in cache/hub" in desk.faults(*MODEL, "--set", "model.revision=v2")[0]
    assert desk.run("fetch", "demo.yaml").out == "nothing to fetch: the model is the folder model, and data are files\n"


def test_only_what_a_job_loads_is_brought_and_nothing_twice(desk: Desk, hub: Hub) -> None:
    offline(desk)
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    parts = {"model-1.safetensors": b"one", "model-2.safetensors": b"two", "model.safetensors.index.json": index}
    waste = {"pytorch_model.bin": b"w" * 99, "onnx/model.onnx": b"o", "README.md": b"r", "model.fp16.safetensors": b"h"}
    small = {"config.json": b"{}", "tokenizer.model": b"t", "chat_template.jinja": b"c"}
    hub.push("owner/tiny", {**small, **parts, **waste})
    assert desk.run("fetch", "demo.yaml", *MODEL).out.startswith("owner/tiny at main: 6 files, ")
    assert sorted(name for name, _ in hub.sent) == sorted([*small, *parts])
    hub.sent.clear()
    hub.push("owner/tiny", {**small, **parts, **waste, "tokenizer.model": b"new"})
    assert desk.run("fetch", "demo.yaml", *MODEL).code == 0
    assert hub.sent == [("tokenizer.model", 3)]


@pytest.mark.slow
def test_each_fault_of_the_hub_is_said_in_a_line_that_helps(tmp_path: Path, hub: Hub) -> None:
    hub.push("owner/tiny", FILES)
    hub.push("owner/gated", FILES)
    hub.gated.add("owner/gated")
    hub.push("owner/bare", {"config.json": b"{}"})
    hub.push("owner/data", {"rows.csv": b""})
    big = hub.push("owner/cut", {**FILES, "model.safetensors": b"w" * 100_000})

    def said(case: tuple[str, ...]) -> tuple[str, str]:
        model, revision, url = (*case, *("main", hub.url)[len(case) - 1 :])
        command = [sys.executable, "-m", "hpcft.launch.download", model, revision, str(tmp_path)]
        variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        assert done.returncode == 2, done.stdout + done.stderr
        fault = json.loads(done.stdout.splitlines()[-1])["fault"]
        return fault["what"], fault["fix"].replace(hub.url, "HUB")

    hub.cut = 50_000
    other, away = "Name another model.path.", "http://127.0.0.1:9"
    cases = {
        ("owner/none",): ("is not on the hub, or is private.", "Check model.path at HUB/owner/none, or set HF_TOKEN."),
        ("owner/tiny", "v9"): ("has no revision v9.", "Its branches, tags and commits are at HUB/owner/tiny."),
        ("owner/gated",): ("is gated.", "Accept its terms at HUB/owner/gated, then `hf auth login` or set HF_TOKEN."),
        ("owner/bare",): ("holds no weights that transformers reads (safetensors or bin).", other),
        ("owner/data",): ("holds no config.json, so it is no model of transformers.", other),
        ("owner/cut",): ("broke off on its way.", "Fetch again: files that came whole are kept."),
        ("owner/tiny", "main", away): (
            "cannot be fetched: the hub does not answer.",
            "Fetch where there is internet (transfer_options).",
        ),
    }
    with ThreadPoolExecutor(4) as pool:
        assert dict(zip(cases, pool.map(said, cases), strict=True)) == cases
    assert snapshot(tmp_path, Model(path="owner/cut")) is None  # main leads to nothing half
    assert lacks(tmp_path / "models--owner--cut/snapshots" / big) == ["weights"]


def test_the_cache_is_the_clusters_and_home_only_where_nothing_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert hub_cache(cluster()) == Path("/home/me/.cache/huggingface/hub")
    assert hub_variables(cluster()) == {}
    monkeypatch.setenv("HF_HOME", "/group/hf")
    assert hub_cache(cluster()) == Path("/group/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/group/hub")
    assert hub_cache(cluster()) == Path("/group/hub")
    named = cluster(cache="/scratch/hf")
    assert hub_cache(named) == Path("/scratch/hf/hub")
    variables = hub_variables(named)
    assert variables.pop("HF_TOKEN_PATH") == "/group/hf/token"  # where the login has put it
    assert {"HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"} <= set(variables)
    assert all(Path(path).is_relative_to("/scratch/hf") for path in variables.values())


def test_a_site_that_wants_downloads_on_other_nodes_gets_them_there(tmp_path: Path) -> None:
    there = cluster(
        cache="/scratch/hf", account="project", transfer_options={"partition": "prepost", "time": "2:00:00"}
    )
    command = Wanted("", Model(path="owner/tiny", revision="v2"), there, Env(tmp_path)).command
    assert command[:7] == [
        "srun", "--account=project", "--job-name=hpcft-fetch", "--nodes=1", "--ntasks=1", "--partition=prepost",
        "--time=2:00:00",
    ]  # fmt: skip
    assert command[8:10] == ["-u", "-c"] and command[11:] == ["owner/tiny", "v2", "/scratch/hf/hub"]
    own = Wanted("", Model(path="owner/tiny"), there, Env(tmp_path), "lab").command
    assert own[1] == "--account=lab", "the recipe's account goes before the cluster's"
    here = Wanted("", Model(path="owner/tiny"), cluster(cache="/scratch/hf"), Env(tmp_path)).command
    assert here[0] == str(tmp_path / "bin/python")


def test_the_env_of_the_jobs_gets_no_package_of_the_env_that_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours"  # as pip installs hpcft: beside all other packages
    (ours / "huggingface_hub").mkdir(parents=True)
    (ours / "huggingface_hub/__init__.py").write_text("raise SystemExit('the one of the wrong env')\n")
    (ours / "hpcft").symlink_to(Path(hpcft.__file__).parent)
    monkeypatch.setattr(hpcft, "__file__", str(ours / "hpcft/__init__.py"))
    monkeypatch.setenv("PYTHONPATH", str(ours))
    bare = make_venv(tmp_path / "bare", more=False)
    with pytest.raises(UserError) as error:
        fetch(Wanted("x", Model(path="owner/tiny"), cluster(cache=str(tmp_path / "hf")), Env(bare)))
    fault = f"owner/tiny cannot be fetched: the env {bare} has no huggingface_hub. Install transformers there."
    assert [str(fault) for fault in error.value.faults] == [f"x: {fault}"]
