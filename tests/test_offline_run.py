"""A run of a hub's model where compute nodes reach no hub: refused, fetched, trained, and at one commit all the way."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpcft.launch.room import CHECKPOINT_BYTES
from hpcft.launch.weights import count_parameters
from hpcft.rundir import RunDir
from tests.hub import serving
from tests.parts import make_tiny_gpt2
from tests.promise import ENVIRONMENT, make_parts, make_recipe, running_job, trains, wait_for

pytestmark = pytest.mark.slow


def test_a_run_stays_at_the_commit_of_its_first_job_and_says_what_it_lacks(tmp_path: Path) -> None:
    make_parts(tmp_path)
    recipe = make_recipe(tmp_path, "hub", 100_000)
    values = yaml.safe_load(recipe.read_text())
    site = {"kind": "local", "runs": "runs", "stop_margin": 2, "internet": False, "cache": str(tmp_path / "cache")}
    (tmp_path / "island.yaml").write_text(yaml.safe_dump(site))
    recipe.write_text(yaml.safe_dump({**values, "model": {"path": "owner/tiny"}, "cluster": "./island.yaml"}))
    with serving() as hub:
        first = hub.push_folder("owner/tiny", tmp_path / "model", {"pytorch_model.bin": b"never looked at"})
        home = tmp_path / "home"
        home.mkdir()

        def hpcft(*arguments: str) -> tuple[int, str]:
            command = [sys.executable, "-m", "hpcft.cli", *arguments]
            variables = {**ENVIRONMENT, "HF_ENDPOINT": hub.url, "HPCFT_RUNS": str(tmp_path / "runs"), "HOME": str(home)}
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables)
            return done.returncode, done.stdout + done.stderr

        def command_in(words: str) -> list[str]:
            return shlex.split(re.findall(r"`hpcft (fetch [^`]+)`", words)[-1])

        code, words = hpcft("submit", str(recipe))
        assert code == 2 and "owner/tiny is not in " in words
        code, said = hpcft(*command_in(words))
        assert code == 0 and f"commit {first}" in said
        assert hpcft("submit", str(recipe))[0] == 0
        run = RunDir(tmp_path / "runs" / "hub")
        wait_for(lambda: (job := running_job(run)) and trains(job))
        assert hpcft("stop", "hub")[0] == 0
        wait_for(lambda: running_job(run) is None)
        parameters = count_parameters(tmp_path / "model") or 0
        saved = sum(path.stat().st_size for path in next(run.checkpoints.glob("step-*")).iterdir())
        assert saved == pytest.approx(parameters * CHECKPOINT_BYTES, rel=0.1)  # names and shapes are the rest
        pinned = {"path": "owner/tiny", "revision": "main", "commit": first}
        assert json.loads((run.path / "model.json").read_text()) == pinned

        # The branch moves on, in the hub and in the cache, and the first commit is purged.
        other = hub.push_folder("owner/tiny", make_tiny_gpt2(tmp_path / "other", seed=7))
        assert other in hpcft("fetch", str(recipe))[1]
        shutil.rmtree(tmp_path / "cache/hub/models--owner--tiny/snapshots" / first)
        code, words = hpcft("resume", "hub", "--wait")
        assert code == 1, words
        assert f"owner/tiny at {first} is not in " in words
        command = command_in(words)
        assert command == ["fetch", str(run.path)]
        assert first in hpcft(*command)[1]
        assert hpcft("resume", "hub")[0] == 0
        wait_for(lambda: (job := running_job(run)) and trains(job))
        assert hpcft("cancel", "hub")[0] == 0
    assert not (home / ".cache/huggingface").exists()
