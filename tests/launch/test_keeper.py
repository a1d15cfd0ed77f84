"""The keeper of this machine's queue: what it does where no job of ours ever comes to its first line."""

from __future__ import annotations

import os
from pathlib import Path

from hpcft.disk import read_json, write_json
from hpcft.launch import keeper
from hpcft.rundir import RunDir
from tests.desk import Desk


def test_a_chain_that_the_keeper_halts_is_told_to_whom_the_recipe_names(desk: Desk) -> None:
    desk.patch.setenv("PATH", os.defpath)
    desk.write("env/bin/python", "#!/bin/sh\nexit 1\n").chmod(0o755)
    teller = desk.write("tell", '#!/bin/sh\necho "$HPCFT_EVENT: $HPCFT_REASON" >> told\n')
    teller.chmod(0o755)
    run = RunDir(desk.folder / "runs" / "demo")
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    resources = {"gpus": 0, "walltime": "0:01:00", "queued": 1}
    run.job(1).path.mkdir(parents=True)
    write_json(run.path / "recipe.json", {**recipe, "resources": resources, "notify": {"command": str(teller)}})
    cluster = {"name": "here", "kind": "local", "runs": str(run.path.parent)}
    write_json(run.path / "submission.json", {"cluster": cluster, "env": str(desk.folder / "env")})
    write_json(run.path / "queued.json", {"time": 0})
    write_json(run.job(1).path / "submitted.json", {"slurm_id": "local1", "walltime": 60, "time": 0})
    keeper.keep(run)
    reason = "2 jobs in a row died before their first line."
    assert (run.halted or {})["reason"] == reason
    assert (run.path / "told").read_text() == f"halted: {reason}\n"
    (record,) = (run.path / "notices").iterdir()
    assert (read_json(Path(record)) or {})["channels"]["command"]["result"] == "sent"
