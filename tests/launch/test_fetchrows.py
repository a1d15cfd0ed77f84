"""Rows of the hub: brought by one command, read without it afterwards, and missed before the queue, not in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcft
from tests.desk import Desk, make_desk
from tests.hub import Hub, serving

CODE = """
import sys
from hpcft.data.source import source_hash, split_rows
from hpcft.errors import UserError
from hpcft.recipe import Recipe
recipe = Recipe.model_validate_json(sys.argv[1])
try:
    rows = [row["body"] for split in ("train", "test") for row in split_rows(recipe, split)]
    print(rows, source_hash(recipe, "train"))
except UserError as error:
    print(error)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_"))]:
        monkeypatch.delenv(name)
    desk = make_desk(tmp_path, monkeypatch)
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + f"internet: false\ncache: {desk.folder}/cache\n")
    return desk


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def read(desk: Desk, **data: object) -> str:
    """What a job without internet reads."""
    recipe = {
        "name": "r",
        "task": "corpus",
        "model": {"path": "/m"},
        "data": {"train": "owner/rows", "test": "owner/rows", **data},
    }
    own = {
        "HF_HOME": f"{desk.folder}/cache",
        "HF_DATASETS_CACHE": f"{desk.folder}/cache/datasets",
        "HF_HUB_OFFLINE": "1",
    }
    variables = {**os.environ, **own, "PYTHONPATH": str(Path(hpcft.__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", CODE, json.dumps(recipe)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_rows_that_nodes_could_not_load_are_refused_until_they_are_fetched(desk: Desk, hub: Hub) -> None:
    first = {"train.jsonl": b'{"body": "a"}\n{"body": "b"}\n', "test.jsonl": b'{"body": "c"}\n'}
    old = hub.push("datasets/owner/rows", first, "old")
    new = hub.push("datasets/owner/rows", {**first, "train.jsonl": b'{"body": "z"}\n'})
    sets = ("--set", "data.train=owner/rows", "--set", "data.test=owner/rows", "--set", f"data.revision={old}")
    command = f"hpcft fetch demo.yaml {' '.join(sets)}"
    missing = f"owner/rows is not in cache/datasets, and nodes of site do not reach the hub. `{command}` brings it."
    assert desk.faults(*sets) == [f"--set data.train: {missing}", f"--set data.test: {missing}"]
    answer = desk.run("fetch", "demo.yaml", *sets)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"owner/rows, train: 2 rows, commit {old}\nowner/rows, test: 1 row, commit {old}\n"
    desk.accepts(*sets)
    assert read(desk, revision=old).startswith("['a', 'b', 'c'] ")
    # Another commit is not there: datasets would take what it has, and say so to nobody.
    wrong = f"is at commit {old} in the cache, not at {new}, and the hub does not answer."
    assert read(desk, revision=new) == f"owner/rows: {wrong} Fetch it where there is internet: `hpcft fetch RECIPE`."


def test_what_the_hub_does_not_have_is_said(desk: Desk, hub: Hub) -> None:
    answer = desk.run("fetch", "demo.yaml", "--set", "data.train=owner/none")
    assert answer.code == 2
    assert answer.err.startswith("hpcft: owner/none: cannot be loaded: Dataset 'owner/none' doesn't exist on the Hub")
