"""Whole runs on this machine: what a user does in a day, and what goes wrong in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from hpcft.cli.looking import job_curves
from hpcft.curves.stitch import stitch
from hpcft.launch import local
from hpcft.rundir import RunDir
from tests.parts import write_documents
from tests.promise import (
    ENVIRONMENT,
    hpcft,
    is_over,
    job_tree,
    kill,
    make_parts,
    make_recipe,
    outcome,
    run_whole,
    running_job,
    trains,
    wait_for,
)

pytestmark = pytest.mark.slow
LONG = "--set=train.steps=100000"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    make_parts(folder)
    return folder


def started(folder: Path, runs: Path, name: str, *more: str) -> RunDir:
    """A run whose first job trains."""
    done = hpcft("submit", make_recipe(folder, name, 40), "--runs", runs, *more)
    assert done.returncode == 0, done.stderr
    run = RunDir(runs / name)
    wait_for(lambda: (job := running_job(run)) and trains(job))
    return run


def halted_words(parts: Path, tmp_path: Path, *more: str, **changes: object) -> str:
    """What `status` says of a run that must halt in its first job."""
    recipe = make_recipe(parts, "halts", 10)
    values = yaml.safe_load(recipe.read_text())
    values.update(changes)
    recipe.write_text(yaml.safe_dump(values))
    done = hpcft("submit", recipe, "--runs", tmp_path, "--wait", *more)
    assert done.returncode == 1, done.stdout + done.stderr
    status = json.loads(hpcft("status", "halts", "--runs", tmp_path, "--json").stdout)["runs"][0]
    assert status["state"] == "halted"
    assert [job["ending"] for job in status["jobs"]] == ["refused", "cancelled", "cancelled"]
    return str(status["note"])


def test_a_finished_run_holds_a_model_that_loads_and_evaluates_as_the_curve_says(parts: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (parts / "validation.jsonl").read_text().splitlines()]
    test = parts / "test.jsonl"
    test.write_text("".join(json.dumps({**row, "answer": "Yes"}) + "\n" for row in rows))
    choices = ("--set", f"data.test={test}", "--set", "evaluate.choices=[Yes, No]")
    done = hpcft("submit", make_recipe(parts, "whole", 12), "--runs", tmp_path, "--wait", *choices)
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(run.final_model)
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000
    after = json.loads((run.evaluation / "after.json").read_text())
    assert f"{after['accuracy']:.1%} after" in done.stdout and after["rows"] == len(rows)
    again = hpcft("evaluate", "whole", "--on-cluster", "--runs", tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"accuracy on {len(rows)} held-out rows: {after['accuracy']:.1%}, " in again.stdout
    assert f"{run.evaluation}: test-model.json, test-model.parquet, test-model.png\n" in again.stdout
    assert not list(tmp_path.glob(".debug-*"))
    shown = hpcft("evaluate", "whole", "--json", "--runs", tmp_path)
    assert json.loads(shown.stdout)["confusion"] == after["confusion"]
    out = tmp_path / "out"
    exported = hpcft("export", "whole", out, "--runs", tmp_path)
    assert exported.returncode == 0
    assert "Loading" not in exported.stderr, "bars of libraries are for terminals"
    texts = [hpcft("generate", *model, "--prompt", "Who waits?", "--max-new-tokens", "6") for model in (
        (out,), ("whole", "--runs", tmp_path))]  # fmt: skip
    assert texts[0].stdout == texts[1].stdout and texts[0].stdout.endswith("\n"), texts[0].stderr + texts[1].stderr
    curve = stitch(job_curves(run)).curve("validation/loss")
    assert curve.steps.tolist() == [0, 10, 12]
    assert (run.path / "curve.png").stat().st_size > 10_000
    assert f"model: {run.final_model}" in done.stdout.replace("\n", "")
    env = json.loads((run.path / "env.json").read_text())
    assert env["prefix"] == sys.prefix and any(package.startswith("torch==") for package in env["packages"])


def test_any_number_of_processes_learns_the_same(parts: Path, tmp_path: Path) -> None:
    curves = []
    for processes in (1, 2, 4):
        recipe = make_recipe(parts, f"p{processes}", 12, processes)
        whole = run_whole(recipe, tmp_path, "--set", "train.batch_size=8", "--set", "train.micro_batch_size=2")
        curves.append(outcome(whole).curve)
    for other in curves[1:]:
        assert [step for step, _ in other] == [step for step, _ in curves[0]]
        assert [loss for _, loss in other] == pytest.approx([loss for _, loss in curves[0]], rel=1e-4)


def test_a_corpus_is_trained_in_blocks_and_cut_without_trace(parts: Path, tmp_path: Path) -> None:
    write_documents(parts / "documents.csv", 60)
    recipe = make_recipe(parts, "corpus", 400)
    values = yaml.safe_load(recipe.read_text())
    values["task"] = "corpus"
    values["data"] = {"train": "documents.csv", "max_length": 64, "workers": 2}
    values["train"] |= {"log_every": 7}
    del values["evaluate"]
    recipe.write_text(yaml.safe_dump(values))
    whole = run_whole(recipe, tmp_path / "whole")
    assert hpcft("submit", recipe, "--runs", tmp_path / "cut").returncode == 0
    run = RunDir(tmp_path / "cut" / "corpus")
    wait_for(lambda: (job := running_job(run)) and trains(job))
    hpcft("stop", "corpus", "--runs", tmp_path / "cut")
    wait_for(lambda: running_job(run) is None)
    assert hpcft("resume", "corpus", "--runs", tmp_path / "cut", "--wait").returncode == 0
    assert outcome(run) == outcome(whole)
    assert [step for step, _ in outcome(run).curve] == [*range(7, 400, 7), 400]


def test_a_model_that_does_not_load_halts_in_the_first_job(parts: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(parts / "model", broken)
    (broken / "model.safetensors").write_bytes(b"no weights at all")
    words = halted_words(parts, tmp_path / "runs", model={"path": str(broken)})
    assert words.startswith(f"{broken}: the model does not load: ")


def test_a_completion_that_is_cut_off_halts_in_the_first_job(parts: Path, tmp_path: Path) -> None:
    words = halted_words(parts, tmp_path, "--set", "data.max_length=20")
    assert "data.max_length = 20 cuts the completion off entirely." in words


def test_a_full_disk_halts_the_chain_and_a_resume_with_room_goes_on(parts: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    whole = run_whole(make_recipe(parts, "room", 40), tmp_path / "runs")
    small = tmp_path / "small"
    small.mkdir()
    # Room for the run's own copy of hpcft and 2.8 MB.
    code = sum(-(-path.stat().st_size // 4096) * 4 for path in (whole.path / "code").rglob("*") if path.is_file())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={code + 2800}k", "none", small], check=True)
    try:
        recipe = make_recipe(parts, "full", 40)
        (small / "ballast").write_bytes(bytes((code + 1000) << 10))
        refused = hpcft("submit", recipe, "--runs", small)
        assert refused.returncode == 2 and f"are free in {small}" in refused.stderr, refused.stderr
        (small / "ballast").unlink()
        assert hpcft("submit", recipe, "--runs", small).returncode == 0
        (small / "ballast").write_bytes(bytes(2_300_000))  # somebody else's, while the job starts
        run = RunDir(small / "full")
        wait_for(lambda: is_over(run), seconds=300)
        assert "crashed: the disk is full" in hpcft("status", "full", "--runs", small).stdout
        (small / "ballast").unlink()
        done = hpcft("resume", "full", "--runs", small, "--wait")
        assert done.returncode == 0, done.stdout + done.stderr
        assert outcome(RunDir(small / "full")) == outcome(whole)
    finally:
        subprocess.run(["umount", small], check=True)


def test_ctrl_c_leaves_the_run_going_and_a_second_submit_does_not_touch_it(parts: Path, tmp_path: Path) -> None:
    recipe = make_recipe(parts, "going", 40)
    command = [sys.executable, "-m", "hpcft.cli", "submit", str(recipe), "--runs", str(tmp_path), "--wait", LONG]
    waiting = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        # A shell that starts the tests in the background has them ignore it, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    run = RunDir(tmp_path / "going")
    wait_for(lambda: run.path.exists() and (job := running_job(run)) and trains(job))
    waiting.send_signal(signal.SIGINT)
    words, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert "going goes on. `hpcft status going` shows it, `hpcft stop going` pauses it." in words
    second = hpcft("submit", make_recipe(parts, "going", 8), "--runs", tmp_path, "--wait")
    assert second.returncode == 0 and "run going-2: " in second.stdout
    assert running_job(run)
    assert hpcft("cancel", "going", "--runs", tmp_path).returncode == 0


def test_cancel_ends_all_processes_and_resume_goes_on_from_the_checkpoint(parts: Path, tmp_path: Path) -> None:
    run = started(parts, tmp_path, "cancelled", LONG)
    job = running_job(run)
    assert job
    tree = job_tree(job)
    assert len(tree) >= 4  # supervisor, worker, two data loaders
    assert hpcft("cancel", "cancelled", "--runs", tmp_path).returncode == 0
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree), seconds=30)
    status = json.loads(hpcft("status", "cancelled", "--runs", tmp_path, "--json").stdout)["runs"][0]
    assert status["state"] in ("stopped", "cancelled")
    saved = run.saved_steps()[-1]
    assert hpcft("resume", "cancelled", "--runs", tmp_path).returncode == 0
    wait_for(lambda: (job := running_job(run)) and trains(job))
    now = running_job(run)
    assert now and (now.resumed or {})["step"] == saved
    again = hpcft("resume", "cancelled", "--runs", tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith("hpcft: cancelled: is running already.")
    hpcft("cancel", "cancelled", "--runs", tmp_path)


def test_logs_are_followed_across_jobs(parts: Path, tmp_path: Path) -> None:
    recipe = make_recipe(parts, "logs", 500, walltime="0:14")
    assert hpcft("submit", recipe, "--runs", tmp_path).returncode == 0
    words = hpcft("logs", "-f", "logs", "--runs", tmp_path).stdout
    run = RunDir(tmp_path / "logs")
    assert is_over(run)
    numbers = [job.number for job in run.jobs() if job.started]
    assert len(numbers) > 1
    places = [words.index(f"==> job{number:03d}-local{number} <==") for number in numbers]
    assert places == sorted(places)
    assert "hpcft: begins at step 0 of 500" in words and "hpcft: goes on at step" in words
    assert words.endswith("==> logs is finished at step 500. <==\n") and "submitit INFO" not in words


def test_two_supervisors_never_write_to_one_run(parts: Path, tmp_path: Path) -> None:
    run = started(parts, tmp_path, "locked", LONG)
    supervisor = job_tree(run.job(1))[0]
    code = "import sys, hpcft.job.handover as h; h.LONGEST = 1.0\n"
    code += "from hpcft.job.supervisor import run_job; print(run_job(sys.argv[1], 2))"
    os.kill(supervisor, signal.SIGSTOP)  # else it would save and end for the later job
    done = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True, env=ENVIRONMENT)
    os.kill(supervisor, signal.SIGCONT)
    assert done.stdout.strip() == "locked", done.stderr
    job = running_job(run)
    assert job and job.number == 1 and local.is_running(job)
    hpcft("cancel", "locked", "--runs", tmp_path)
    time.sleep(0.1)


def test_jobs_that_die_before_their_first_line_halt_the_local_chain(parts: Path, tmp_path: Path) -> None:
    recipe = make_recipe(parts, "stillborn", 8)
    assert hpcft("submit", recipe, "--runs", tmp_path, "--set", "resources.jobs=50", LONG).returncode == 0
    run = RunDir(tmp_path / "stillborn")
    job = run.job(1)
    wait_for(lambda: running_job(run))
    (run.code / "hpcft" / "__init__.py").write_text("raise ImportError('no such package')")
    kill(job_tree(job))
    wait_for(lambda: is_over(run))
    assert (run.halted or {})["reason"] == "2 jobs in a row died before their first line."
    assert sum(bool(job.ended and job.ended.get("found_by") == "keeper") for job in run.jobs()) == 2
