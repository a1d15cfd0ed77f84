"""The logs: what jobs printed, without what submitit prints around each, and why nothing more will come."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from tests.desk import Desk

BATCH = """\
submitit INFO (2026-11-22 07:38:14,422) - Starting with JobEnvironment(job_id=46, hostname=vm, local_rank=0(1))
submitit INFO (2026-11-22 07:38:14,423) - Loading pickle: /r/demo/jobs/002/46_submitted.pkl
slurmstepd-gpu1: error: *** JOB 46 ON gpu1 CANCELLED AT 2026-11-22T07:38:31 ***
submitit WARNING (2026-11-22 07:38:31,000) - Bypassing signal SIGCONT
submitit INFO (2026-11-22 07:38:32,178) - Job completed successfully
submitit INFO (2026-11-22 07:38:32,178) - Exiting after successful completion
"""
SPOKEN = "".join(line for line in BATCH.splitlines(keepends=True) if "INFO" not in line)


@pytest.fixture
def run(desk: Desk) -> RunDir:
    """A run on this machine with two jobs, of which the first has ended."""
    run = RunDir(desk.folder / "runs" / "demo")
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    for number in (1, 2):
        run.job(number).path.mkdir(parents=True)
        write_json(run.job(number).path / "submitted.json", {"slurm_id": f"4{number}", "walltime": 60, "time": 0})
    write_json(run.job(1).path / "started.json", {"time": 0, "node": "gpu1", "pid": 0, "identity": None})
    write_json(run.job(1).path / "ended.json", {"ending": "stopped", "time": 9, "last_step": 7, "progress": True})
    write_json(run.job(1).path / "resumed.json", {"step": 0, "total_steps": 10})
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 10}})
    write_json(run.path / "submission.json", {"cluster": {"name": "here", "kind": "local", "runs": "x"}, "env": "/e"})
    write_json(run.path / "queued.json", {"time": 0})
    (run.job(1).path / "46_0_log.out").write_text(BATCH)
    run.job(1).log.write_text("hpcft: begins at step 0 of 10\n")
    return run


def test_the_log_of_a_job_that_was_ended_does_not_call_it_a_success(desk: Desk, run: RunDir) -> None:
    said = desk.run("logs", "demo", "--runs", "runs")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"==> job001-41 <==\n{SPOKEN}hpcft: begins at step 0 of 10\n"


def test_a_job_without_words_is_named_and_one_that_there_is_not_is_refused(desk: Desk, run: RunDir) -> None:
    said = desk.run("logs", "demo", "--runs", "runs", "--job", "2")
    assert (said.code, said.out) == (0, "demo: job 2 has printed nothing yet.\n")
    (run.job(2).path / "47_0_log.out").write_text("".join(BATCH.splitlines(keepends=True)[:2]))
    assert desk.run("logs", "demo", "--runs", "runs", "--job", "2").out == "==> job002-42 <==\n"
    said = desk.run("logs", "demo", "--runs", "runs", "--job", "9")
    assert (said.code, said.out, said.err) == (2, "", "hpcft: --job: demo has no job 9. It has jobs 1 to 2.\n")


def test_whoever_follows_is_told_why_nothing_more_will_come(
    desk: Desk, run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def follow() -> str:
        return desk.run("logs", "-f", "demo", "--runs", "runs").out.splitlines()[-1]

    monkeypatch.setattr("hpcft.launch.logs.ASK_EVERY", 0.0)
    monkeypatch.setattr("hpcft.launch.logs.PAUSE", 0.01)
    run.stop_file.touch()
    assert follow() == "==> demo is stopped at step 7. `hpcft resume demo` goes on. <=="
    write_json(run.path / "halted.json", {"reason": "The disk is full.", "fix": "Make room, then resume.", "time": 0})
    assert follow() == "==> demo is halted at step 7. The disk is full. Make room, then resume. <=="
    write_json(run.path / "finished.json", {"step": 10})
    assert follow() == "==> demo is finished at step 10. <=="
