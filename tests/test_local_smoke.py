"""`hpcft submit --smoke` as a user calls it: the whole way in a minute, and nothing left unless it failed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.parts import make_tiny_gpt2, write_rows
from tests.promise import hpcft

pytestmark = pytest.mark.slow


def make_recipe(folder: Path, **changes: object) -> Path:
    """A recipe for a cluster that is not here, with rows under other names, adapters, and a test by choice."""
    make_tiny_gpt2(folder / "model", layers=4, width=96, heads=3)
    lines = write_rows(folder / "rows.jsonl", 300, seed=1).read_text().splitlines()
    rows = [
        {"body": json.loads(line)["question"], "mood": ("Yes", "No")[number % 2]} for number, line in enumerate(lines)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompt.md").write_text("### Text\n{{text}}\n\n### Mood\n{{label}}")
    values = {
        "name": "tried",
        "task": "instruct",
        "cluster": "narval",
        "model": {"path": "./model"},
        "data": {
            "train": "rows.jsonl",
            "columns": {"text": "body", "label": "mood"},
            "split": {"validation": 0.1, "test": 0.1, "by": "label"},
            "template": "prompt.md",
            "max_length": 160,
        },
        "lora": {"rank": 4},
        "train": {"epochs": 3, "batch_size": 16, "micro_batch_size": 4, "precision": "fp16", "learning_rate": 1e-3},
        "evaluate": {"every": 10, "choices": ["Yes", "No"]},
        "resources": {"gpus": 1, "walltime": "2:00:00", "account": "def-someone"},
    }
    path = folder / "tried.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def test_a_good_recipe_is_seen_to_work_from_rows_to_export_in_two_jobs(tmp_path: Path) -> None:
    began = time.monotonic()
    done = hpcft("submit", make_recipe(tmp_path), "--smoke", "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 120
    assert "  data        rows: 64 of train, 16 of validation, 16 of test\n" in done.stdout
    assert re.search(r"  training    24 steps in 2 jobs: resumed at step \d+, bit-exact; loss \d", done.stdout)
    assert re.search(
        r"  evaluation  validation loss [\d.]+, accuracy before [\d.]+% of 16 rows, accuracy after", done.stdout
    )
    assert "  export      " in done.stdout and "config.json" in done.stdout
    assert "fp16, for fp32 was used" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("hpcft: smoke: tried works (data, model, training, evaluation, export), in ")
    assert not [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".features")]


def test_a_recipe_that_fails_says_why_and_leaves_its_run(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    values = yaml.safe_load(recipe.read_text())
    values["evaluate"]["choices"] = ["Yes", "Perhaps"]
    recipe.write_text(yaml.safe_dump(values))
    done = hpcft("submit", recipe, "--smoke", "--runs", tmp_path / "runs")
    assert done.returncode == 1
    assert '"No" is none of evaluate.choices.' in done.stderr and "Known: Yes, Perhaps." in done.stderr
    assert "hpcft: smoke: tried failed. `hpcft logs tried --runs " in done.stdout
    (left,) = (tmp_path / "runs").glob(".smoke-*")
    assert (left / "test.jsonl").exists() and (left / "failed").exists()
