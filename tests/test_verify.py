"""`hpcft verify` finds a sound run exact, and in one that is not names the step where it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promise import hpcft, make_parts, make_recipe, run_whole

COUNTED = """

_by_place, _calls = set_randomness, 0


def set_randomness(seed, *place):
    global _calls
    _calls += 1
    _by_place(seed + _calls // 6, *place)
"""
"""Dropout that depends on how many micro-batches this process has seen: what a generator that is not keyed does."""


@pytest.mark.slow
def test_a_sound_run_is_exact_and_one_with_dropout_that_is_not_keyed_differs_behind_the_cut(tmp_path: Path) -> None:
    make_parts(tmp_path, rows=40)
    run = run_whole(make_recipe(tmp_path, "tiny", steps=8), tmp_path / "runs", "--set", "train.save_every=3")
    before = sorted(str(path) for path in run.path.rglob("*") if "__pycache__" not in path.parts)
    sound = hpcft("verify", "tiny", "--runs", tmp_path / "runs", "--step", "6", "--steps", "2")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert "steps 7 to 8 of tiny from the checkpoint of step 6, in one piece:" in sound.stdout
    assert "hpcft: goes on at step 7 of 8, bit-exact" in sound.stdout
    last = sound.stdout.splitlines()[-1]
    assert last.startswith("tiny is bit-exact: 2 losses and gradient norms, weights (SHA-256 ")
    assert last.endswith("are the same to the last bit, cut after step 7 or not.")
    assert sorted(str(path) for path in run.path.rglob("*") if "__pycache__" not in path.parts) == before

    keyed = run.code / "hpcft/data/randomness.py"
    keyed.write_text(keyed.read_text() + COUNTED)
    broken = hpcft("verify", "tiny", "--runs", tmp_path / "runs", "--step", "0", "--steps", "4")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    last = broken.stdout.splitlines()[-1]
    # In one piece the sixth micro-batch, of step 3, begins another dropout; behind the cut it is a process's second.
    assert last.startswith("tiny is not exact: they differ first at step 3, whose loss is "), broken.stdout
    meaning = "That is after the cut after step 2: something is in no checkpoint, or depends on the process."
    assert last.endswith(meaning)
    assert not list((tmp_path / "runs").glob(".debug-*"))
