"""A run that is changed, explained, extended and removed on a real Slurm, and what it tells when it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hpcft.rundir import RunDir
from tests.slurm.lab import Lab
from tests.slurm.runs import Site, calls, counting, is_training, leaves_nothing, make_site, queue


@pytest.fixture
def site(slurm: Lab, tmp_path: Path) -> Iterator[Site]:
    """A site whose recipe trains for ever; what a test leaves in the queue is cancelled."""
    yield make_site(tmp_path, slurm)
    if ids := list(queue(slurm)):
        slurm.run("scancel", *ids)


def wait_for_training(site: Site, run: RunDir, number: int) -> None:
    site.wait(f"job {number} to train", lambda: is_training(run.job(number), 5), seconds=90)


def test_a_run_is_changed_explained_extended_and_removed(site: Site, tmp_path: Path) -> None:
    run = site.submit("resources.jobs=2", "resources.queued=2")
    assert len(queue(site.lab, run)) == 2, "as many as resources.jobs"
    said = site.hpcft("extend", run.name, "5")
    assert said == f"{run.name} may go on to job 7, 5 jobs further than before.\n"
    assert len(queue(site.lab, run)) == 3, "what was granted is queued at once"
    wait_for_training(site, run, 1)
    assert "is running. End it first: `hpcft cancel tiny`." in site.hpcft("rm", run.name, "--yes", code=2)
    pause = "is running already. `hpcft stop tiny` pauses it after a save; then it can be changed."
    assert pause in site.hpcft("resume", run.name, "--set", "train.save_every=9", code=2)
    assert "Nothing went wrong in tiny, which is running" in site.hpcft("why", run.name)
    site.hpcft("stop", run.name)
    site.wait("the job to stop", lambda: run.job(1).ended is not None)

    sets = ("train.micro_batch_size=2", "train.learning_rate=1e-4", "resources.walltime=0:20:00", "train.seed=3")
    before = (run.path / "recipe.json").read_bytes()
    refused = site.hpcft("resume", run.name, *(f"--set={text}" for text in sets), code=2)
    assert refused.startswith("hpcft: --set train.seed: train.seed = 3 cannot change in a run: ")
    assert (run.path / "recipe.json").read_bytes() == before and run.stop_file.exists() and not queue(site.lab, run)
    said = site.hpcft("resume", run.name, *(f"--set={text}" for text in sets[:3]))
    assert "tiny: train.learning_rate: 0.001 -> 0.0001; from here on the run learns otherwise" in said
    wait_for_training(site, run, 4)
    fourth = run.job(4)
    assert site.lab.run("squeue", "--noheader", "--jobs", fourth.slurm_id or "", "--format=%l") == "20:00"
    resumed = fourth.resumed or {}
    assert resumed["step"] == (run.job(1).ended or {})["last_step"] and resumed["exactness"] == "sample-exact"
    assert resumed["changes"] == ["micro_batch_size 4 -> 2", "learning_rate 0.001 -> 0.0001"]
    shown = site.hpcft("show", run.name)
    assert ", hpcft extend, " in shown and "hpcft resume, after job 1, at step" in shown
    assert "sample-exact (micro_batch_size 4 -> 2; learning_rate 0.001 -> 0.0001)" in shown

    site.lab.run("scancel", *queue(site.lab, run))  # by hand, so that no job is left to say what happened
    assert leaves_nothing(site.lab, run)
    site.lab.wait(fourth.slurm_id or "")
    path = counting(tmp_path / "count")
    answer = site.hpcft("why", run.name, PATH=path)
    assert answer.startswith("tiny is broken off.") and f"({fourth.slurm_id}), terminated" in answer, answer
    assert "Slurm     " in answer and "goes on from its newest checkpoint." in answer
    asked = [line.split()[0] for line in calls(tmp_path / "count")]
    assert asked.count("sacct") == 1 and asked.count("squeue") <= 1 and len(asked) <= 2
    assert site.hpcft("rm", run.name, "--yes").startswith(f"removed {run.path}: ")
    assert [path.name for path in site.runs.iterdir()] == [".features"]


@pytest.fixture
def mails(slurm: Lab, tmp_path: Path) -> Iterator[Path]:
    """Where the private Slurm's mails land, a line each."""
    program, box, conf = tmp_path / "mail", tmp_path / "mails", slurm.conf.read_text()
    program.write_text(f'#!/bin/sh\necho "$@" >> {box}\n')
    program.chmod(0o755)
    box.touch()
    slurm.conf.write_text(conf.replace("MailProg=/bin/true", f"MailProg={program}"))
    slurm.run("scontrol", "reconfigure")
    yield box
    slurm.conf.write_text(conf)
    slurm.run("scontrol", "reconfigure")


@pytest.fixture
def posts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web server, and what is posted to it."""
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/", found
        web.shutdown()


def test_the_end_of_a_run_is_told_once_by_mail_command_and_webhook_and_its_cuts_are_not(
    site: Site, tmp_path: Path, mails: Path, posts: tuple[str, list[dict[str, Any]]]
) -> None:
    address, found = posts
    tell = site.folder / "tell me.sh"
    tell.write_text(f'#!/bin/sh\necho "$HPCFT_EVENT $HPCFT_STEP $1" >> {tmp_path}/told\n')
    tell.chmod(0o755)
    notify = f"notify={{mail: ada@site.org, webhook: '{address}', command: \"'./tell me.sh' '$(id)'\"}}"
    run = site.submit("train.steps=100000", notify)
    wait_for_training(site, run, 1)
    site.lab.run("scancel", run.job(1).slurm_id or "")  # a cut, as a preemption is one
    wait_for_training(site, run, 2)
    site.hpcft("stop", run.name)
    site.wait("the job to stop", lambda: run.job(2).ended is not None)
    assert leaves_nothing(site.lab, run)
    assert (found, mails.read_text()) == ([], "") and not (tmp_path / "told").exists()

    tokens = site.folder / "model/tokenizer.json"
    hidden = tokens.rename(tmp_path / "tokenizer.json")
    refused = site.hpcft("resume", run.name, code=2)
    assert "tokenizer.json has changed since the run began with it." in refused
    hidden.rename(tokens)
    weights = site.folder / "model/model.safetensors"
    weights.write_bytes(b"none")  # not what a resume looks at, once there is a checkpoint; loading fails all the same
    site.hpcft("resume", run.name)
    site.wait("the chain to halt", lambda: run.halted is not None and bool(found), seconds=90)
    assert leaves_nothing(site.lab, run)
    (post,) = found
    step = (run.job(2).ended or {})["last_step"]
    assert (post["event"], post["run"], post["step"]) == ("halted", "tiny", step) and "does not load" in post["reason"]
    assert (tmp_path / "told").read_text() == f"halted {step} $(id)\n"
    site.wait("the mail", lambda: "hpcft-tiny-halted" in mails.read_text())
    (mail,) = mails.read_text().splitlines()
    assert "ada@site.org" in mail and "Ended" in mail
