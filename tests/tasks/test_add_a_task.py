"""docs/add-a-task.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.parts import make_tiny_encoder

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"```(bash|python title=(\S+))\n(.*?)```", re.DOTALL)


def follow(page: str, root: Path) -> int:
    """How many steps of the page were done in `root`: its commands run, its lines changed."""
    steps = 0
    for language, name, body in STEP.findall(page):
        lines = [line.removeprefix("   ") for line in body.splitlines()]
        if language == "bash":
            subprocess.run("\n".join(lines), shell=True, cwd=root, check=True)
        else:
            text = (root / name).read_text()
            old, new = ("\n".join(line[1:] for line in lines if line[:1] == sign) for sign in "-+")
            assert f"\n{old}\n" in text, (name, old)
            (root / name).write_text(text.replace(f"\n{old}\n", f"\n{new}\n", 1))
        steps += 1
    return steps


@pytest.mark.slow
def test_a_newcomer_adds_a_task_by_copying_a_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "hpcft", tmp_path / "hpcft", ignore=shutil.ignore_patterns("__pycache__"))
    assert follow((ROOT / "docs" / "add-a-task.md").read_text(), tmp_path) == 6
    make_tiny_encoder(tmp_path / "model")
    rows = [
        {"headline": f"Shares {way}", "body": "The queue waits. " * 20, "label": way} for way in ("rise", "fall") * 10
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "news",
        "task": "headline",
        "cluster": "local",
        "model": {"path": "./model"},
        "data": {"train": "rows.jsonl", "test": "rows.jsonl", "max_length": 32, "workers": 0},
        "train": {"steps": 3, "batch_size": 4, "micro_batch_size": 2},
        "resources": {"gpus": 0, "walltime": "0:10:00"},
    }
    (tmp_path / "news.yaml").write_text(yaml.safe_dump(recipe))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def hpcft(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hpcft.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    done = hpcft("submit", "news.yaml", "--runs", "runs", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "news"
    assert json.loads((run / "evaluation" / "after.json").read_text())["labels"] == ["fall", "rise"]
    assert json.loads((run / "model" / "config.json").read_text())["id2label"] == {"0": "fall", "1": "rise"}
    (tmp_path / "rows.jsonl").write_text('{"headline": "Shares", "label": "rise"}\n')
    refused = hpcft("submit", "news.yaml", "--runs", "runs", "--dry-run")
    assert refused.returncode == 2 and 'has no column "body"' in refused.stderr, refused.stderr
