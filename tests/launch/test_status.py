"""The status of a run: from its files and from what the scheduler said; what is not known is said to be so."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcft.disk import read_json, write_json
from hpcft.launch import slurm
from hpcft.launch.facts import BLOCK
from hpcft.launch.show import details, print_runs
from hpcft.launch.slurm import JobState
from hpcft.launch.status import Answer, RunStatus, read_status
from hpcft.rundir import RunDir
from tests.desk import Desk

NOW = time.time()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time stands still."""
    monkeypatch.setattr("hpcft.launch.status.time", SimpleNamespace(time=lambda: NOW))


def make_run(folder: Path, kind: str = "slurm", **resources: Any) -> RunDir:
    """A run of 100 steps on two GPUs, submitted a thousand seconds ago, without jobs."""
    run = RunDir(folder / "demo")
    run.jobs_folder.mkdir(parents=True)
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    resources = {"gpus": 2, "walltime": "0:10:00", **resources}
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 100}, "resources": resources})
    write_json(run.path / "submission.json", {"cluster": {"name": "here", "kind": kind, "runs": "x"}, "env": "/e"})
    write_json(run.path / "queued.json", {"time": 0})
    return run


def add(run: RunDir, number: int, submitted: float, after: str = "", **facts: dict[str, Any]) -> None:
    """A job that was submitted so many seconds ago, with what it has left: started={...}, ended={...}, ..."""
    job = run.job(number)
    job.path.mkdir()
    record = {"slurm_id": str(number), "walltime": 600, "gpus": 2, "after": [after] if after else []}
    write_json(job.path / "submitted.json", {**record, "time": NOW - submitted})
    for name, fact in facts.items():
        write_json(job.path / f"{name}.json", fact)


def cut_run(folder: Path) -> RunDir:
    """Two jobs of ten minutes that trained 20 steps each, a third that trains, and one behind it.

    The first waited 60 s, the second 120 s after it could have begun, the third 30 s.
    """
    run = make_run(folder)
    seconds = {"train": 500.0, "start": 60.0, "save": 40.0}
    for number, begun, after in ((1, 2000, ""), (2, 1280, "1")):
        first = (number - 1) * 20
        ended = {"ending": "walltime", "time": NOW - begun + 600, "wall_seconds": 600.0, "last_step": first + 20,
                 "loss": 3.0 - number, "seconds": seconds, "progress": True}  # fmt: skip
        add(run, number, 2060, after, started={"time": NOW - begun, "node": "gpu001"},
            resumed={"step": first, "total_steps": 100}, ended=ended)  # fmt: skip
    beat = {"time": NOW, "phase": "train", "last_step": 44, "loss": 0.75, "validation_loss": 0.8,
            "tokens_per_second": 612.4, "seconds": {"train": 100.0}}  # fmt: skip
    add(run, 3, 1300, "2", started={"time": NOW - 650, "node": "gpu002"}, resumed={"step": 40, "total_steps": 100},
        heartbeat=beat)  # fmt: skip
    add(run, 4, 600, "3")
    folder = run.checkpoints / "step-00000040"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {})
    return run


def status_of(run: RunDir, states: dict[int, JobState], silent: bool = False) -> RunStatus:
    return read_status([run], Answer({run.job(number).path: said for number, said in states.items()}, silent))[0]


BOTH = {3: JobState("RUNNING", "", "gpu002"), 4: JobState("PENDING", "waits for the job before it")}


def test_what_slurm_says_and_what_the_run_says_stand_apart(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    status = status_of(run, BOTH)
    assert (status.state, status.queue, status.says) == ("running", "job 3 runs on gpu002", "trains")
    assert (status.step, status.loss, status.validation_loss, status.phase) == (44, 0.75, 0.8, "train")
    beat = {"time": NOW - 300, "phase": "save", "last_step": 44}
    write_json(run.job(3).path / "heartbeat.json", beat)
    assert status_of(run, BOTH).says == "silent for 5:00"
    write_json(run.job(3).path / "heartbeat.json", {**beat, "time": NOW, "stopping": "walltime"})
    assert status_of(run, BOTH).says == "saves, stopping (walltime)"
    write_json(run.job(3).path / "ended.json", {"ending": "walltime", "time": NOW, "last_step": 44, "progress": True})
    waiting = status_of(run, {4: JobState("PENDING", "others are before it")})
    assert (waiting.state, waiting.queue, waiting.says) == (
        "queued", "job 4 waits: others are before it", "job 3 walltime",
    )  # fmt: skip


def test_a_run_in_phases_says_which_one_it_is_in(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    recipe = read_json(run.path / "recipe.json") or {}
    recipe["phases"] = [{"name": name, "train": {"steps": 50}} for name in ("full", "completion")]
    write_json(run.path / "recipe.json", recipe)
    assert (status_of(run, BOTH).recipe_phase, status_of(run, BOTH).says) == ("full", "trains phase 1 of 2")

    def place(over: bool) -> None:
        first = {"name": "full", "begins": 0, "ends": 44, "step_tokens": 1.0, "over": over}
        second = {"name": "completion", "begins": 44, "ends": 94, "step_tokens": 1.0, "over": False}
        write_json(run.path / "phases.json", {"phases": [first, second]})

    place(over=False)  # its last step is done, and it is tested
    assert status_of(run, BOTH).recipe_phase == "full"
    place(over=True)
    assert status_of(run, BOTH).says == "trains phase 2 of 2"
    lines = [line for line in details(status_of(run, BOTH)) if line.startswith("  phase")]
    assert lines == [
        "  phase      1 of 2, full: steps 1 to 44, over",
        "  phase      2 of 2, completion: steps 45 to 94, now",
    ]
    write_json(run.path / "finished.json", {"step": 94})
    assert status_of(run, {}).recipe_phase == "completion"


def test_speeds_are_said_as_far_as_the_job_knows_them(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    assert "  speed      612 tokens/s" in details(status_of(run, BOTH))
    assert "  loss       0.7500 in training, 0.8000 in validation, perplexity 2.226" in details(status_of(run, BOTH))
    beat = run.job(3).heartbeat or {}
    more = {"trained_tokens_per_second": 41.0, "padding_share": 0.031, "mfu": 0.31, "gpu_memory_peak": 12.34}
    write_json(run.job(3).path / "heartbeat.json", {**beat, **more})
    words = "612 tokens/s, 41 of them trained, 3.1% padding, MFU 31.0%, at most 12.3 GB on a card"
    assert f"  speed      {words}" in details(status_of(run, BOTH))


def test_a_slurm_that_is_silent_changes_nothing_of_what_the_run_says_and_concludes_nothing(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    status = status_of(run, {}, silent=True)
    assert (status.state, status.queue, status.says) == ("unknown", "Slurm does not answer", "trains")
    assert (status.step, status.saved_step, status.loss) == (44, 40, 0.75)
    assert (status.eta_seconds, status.eta_with_waits, status.gpu_hours_left) == (None, None, None)
    assert [job.state_from for job in status.jobs] == [
        *["not asked: its ending is on record"] * 2, *["not known: Slurm does not answer"] * 2,
    ]  # fmt: skip
    known = status_of(run, {})
    assert (known.state, known.queue) == ("broken off", "nothing")
    assert known.jobs[3].state_from == "the scheduler does not know it"


def test_the_time_left_counts_the_waits_of_jobs_to_come_as_the_mean_of_those_so_far(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    status = status_of(run, BOTH)
    assert status.queue_waits == pytest.approx([60, 120, 30])
    # 56 steps at 25 s, and what jobs lose to their start and save; job 3 has used up its walltime.
    assert status.eta_seconds is not None and status.eta_jobs is not None
    assert 1400 < status.eta_seconds < 3000 and status.eta_jobs >= 3
    assert status.eta_waits == pytest.approx(status.eta_jobs * 70)
    assert status.eta_with_waits == status.eta_seconds + status.eta_waits
    (line,) = [line for line in details(status) if line.startswith("  left ")]
    assert line.endswith("if it goes on so: 3 jobs of this run waited 1:10 on average")
    recipe = json.loads((run.path / "recipe.json").read_bytes())
    for jobs, grants in ((3 + 1, "1 of them"), (3, "none")):  # three have begun
        write_json(run.path / "recipe.json", {**recipe, "resources": {**recipe["resources"], "jobs": jobs}})
        short = status.eta_jobs + 3 - jobs
        said = f"{status.eta_jobs} more jobs (resources.jobs grants {grants}: `hpcft extend demo {short}`), if it"
        assert any(said in line for line in details(status_of(run, BOTH)))
    write_json(run.path / "recipe.json", recipe)
    # While the next one waits, what it has waited is not counted again.
    write_json(run.job(3).path / "ended.json", {"ending": "walltime", "time": NOW - 50, "wall_seconds": 600.0,
                                                "last_step": 44, "seconds": {"train": 100.0}})  # fmt: skip
    queued = status_of(run, {4: JobState("PENDING", "others are before it")})
    assert queued.eta_jobs and queued.eta_waits == pytest.approx((queued.eta_jobs - 1) * 70 + 20)


def test_before_any_job_has_trained_the_time_left_is_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, 1, 50)
    status = status_of(run, {1: JobState("PENDING", "next in line, waits for a free node")})
    assert (status.state, status.says, status.eta_seconds, status.eta_waits) == ("queued", "not begun", None, None)
    assert details(status)[-1] == "  left       unknown until a job has trained"


def test_gpu_hours_are_of_all_jobs_also_of_what_was_lost(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    status = status_of(run, BOTH)
    assert status.gpu_hours_used == pytest.approx((600 + 600 + 650) * 2 / 3600)
    assert status.gpu_hours_left == pytest.approx((status.eta_seconds or 0) * 2 / 3600)
    record = json.loads((run.job(1).path / "submitted.json").read_bytes())
    write_json(run.job(1).path / "submitted.json", {**record, "gpus": 4})  # a later change of resources.gpus
    assert status_of(run, BOTH).gpu_hours_used == pytest.approx((1200 + 600 + 650) * 2 / 3600)


def test_a_waiting_job_that_a_hand_has_held_is_no_half_done_submit(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, 1, 50)
    held = {1: JobState("PENDING", "held")}
    assert status_of(run, held).state == "half-submitted"
    run.job(1).released.touch()
    assert (status_of(run, held).state, status_of(run, held).note) == ("queued", "held")


def test_jobs_that_were_cancelled_before_the_last_resume_say_nothing_of_what_became_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, 1, 50, ended={"ending": "cancelled", "time": NOW})
    assert status_of(run, {}).state == "cancelled"
    write_json(run.path / "resume.json", {"after": 0, "submitted": 1, "time": NOW})
    add(run, 2, 40)
    assert status_of(run, {}).state == "broken off"


def test_a_fact_of_any_length_is_read_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for number, length in enumerate((10, BLOCK - 30, BLOCK - 29, BLOCK, 3 * BLOCK), 1):
        add(run, number, 50, ended={"ending": "crashed", "reason": "x" * length, "time": NOW})
    assert [len(job.why or "") for job in status_of(run, {}).jobs] == [10, BLOCK - 30, BLOCK - 29, BLOCK, 3 * BLOCK]


def test_the_table_fits_120_columns_and_says_what_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcft.launch.show import console

    monkeypatch.setattr(console, "width", 120)
    first, second = make_run(tmp_path / "new"), cut_run(tmp_path)
    add(first, 1, 50)
    print_runs([status_of(first, {1: JobState("PENDING", "others are before it")}), status_of(second, BOTH)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120 and lines[0].split() == [
        "run", "state", "queue", "run", "says", "step", "loss", "tok/s", "saved", "GPU", "h", "left",
    ]  # fmt: skip
    new, running = (line for line in lines if line.startswith("demo"))
    assert new.split()[-8:] == ["not", "begun", "0/100", "-", "-", "-", "-", "-"], lines
    cells = re.split(r"\s{2,}", running.strip())
    assert cells[:7] == ["demo", "running", "job 3 runs on gpu002", "trains", "44/100", "0.7500", "612"], lines
    assert re.fullmatch(r"1\.0\+1\.\d", cells[8]) and re.fullmatch(r"\d+:\d\d(:\d\d)?", cells[9]), lines
    monkeypatch.setattr(console, "width", 80)
    print_runs([replace(status_of(second, BOTH), name="finance-sentiment")])
    heading, row, *_ = narrow = capsys.readouterr().out.splitlines()
    assert heading.split()[-2:] == ["saved", "left"] and "tok/s" not in heading and max(map(len, narrow)) <= 80
    assert row.startswith("finance-sentiment") and "44/100" in row and row.split()[-1] == cells[9]


def test_json_has_everything_that_is_known(desk: Desk) -> None:
    run = cut_run(desk.folder / "runs")
    desk.program("squeue", "echo '3|RUNNING|None|gpu002|1'; echo '4|PENDING|Priority||1'")
    desk.program("sacct", f"echo called >> {desk.folder}/calls")
    answer = json.loads(desk.run("status", "demo", "--json", "--runs", "runs").out)["runs"][0]
    assert (answer["state"], answer["queue"], answer["saved_step"]) == ("running", "job 3 runs on gpu002", 40)
    assert [(job["state"], job["state_from"]) for job in answer["jobs"][1:]] == [
        (None, "not asked: its ending is on record"), ("RUNNING", "squeue"), ("PENDING", "squeue"),
    ]  # fmt: skip
    assert answer["jobs"][3]["reason"] == slurm.PENDING_REASONS["Priority"]
    assert [round(job["wait_seconds"]) for job in answer["jobs"][:3]] == [60, 120, 30]
    assert not (desk.folder / "calls").exists(), "squeue knew them all"
    refused = desk.run("status", "demo", "--json", "--watch", "--runs", "runs")
    assert refused.err == "hpcft: --watch: goes without --json. Call `hpcft status --json` again when you need it.\n"
    assert run.name == "demo"


def test_watching_what_is_over_prints_it_once_and_ends(desk: Desk) -> None:
    run = make_run(desk.folder / "runs", kind="local")
    write_json(run.path / "finished.json", {"step": 100})
    said = desk.run("status", "demo", "--watch", "--runs", "runs")
    assert said.code == 0 and said.out.startswith("demo: step 100/100 finished\n"), said


def test_the_seconds_of_a_start_are_said_by_phase_the_longest_first(tmp_path: Path) -> None:
    run = cut_run(tmp_path)
    beat = run.job(3).heartbeat or {}
    start = {"launch": 0.62, "imports": 4.1, "data": 0.01, "first step": 1.2}
    write_json(run.job(3).path / "heartbeat.json", {**beat, "start": start})
    words = "5.9 s to the end of the first step: imports 4.1, first step 1.2, launch 0.6"
    assert f"  start      job 3: {words}" in details(status_of(run, BOTH))
