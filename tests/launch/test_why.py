"""The post-mortem: what happened, from the run's own records and Slurm's accounts, and what to type."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from hpcft.disk import write_json
from hpcft.launch.changes import standing
from hpcft.launch.cluster import Cluster
from hpcft.launch.mend import Evidence, mend
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from tests.desk import Desk

TRACEBACK = """\
hpcft: begins at step 0 of 100
Traceback (most recent call last):
  File "loop.py", line 3, in old
ValueError: survived
hpcft: warned
Traceback (most recent call last):
  File "loop.py", line 7, in train
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 31.73 GiB.
[rank1]: closing
"""


@pytest.fixture
def run(desk: Desk) -> RunDir:
    """A run on Slurm, whose first job was cut and whose second one has nothing on record but its start."""
    run = RunDir(desk.folder / "runs" / "demo")
    recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    train = {"steps": 100, "batch_size": 12, "micro_batch_size": 6}
    for number in (1, 2):
        run.job(number).path.mkdir(parents=True)
        write_json(run.job(number).path / "submitted.json", {"slurm_id": f"471{number}", "walltime": 600, "time": 0})
        write_json(run.job(number).path / "started.json", {"time": 1000.0 * number, "node": f"gpu00{number}"})
    ended = {"ending": "walltime", "time": 1600.0, "last_step": 40, "progress": True, "wall_seconds": 600.0}
    write_json(run.job(1).path / "ended.json", ended)
    write_json(run.job(2).path / "resumed.json", {"step": 40, "total_steps": 100})
    write_json(run.path / "recipe.json", {**recipe, "train": train, "resources": {"gpus": 2, "walltime": "0:10:00"}})
    cluster = {"name": "here", "kind": "slurm", "runs": "x", "max_walltime": "0:15:00"}
    write_json(run.path / "submission.json", {"cluster": cluster, "env": "/e"})
    write_json(run.path / "queued.json", {"time": 0})
    desk.program("squeue", f"echo squeue >> {desk.folder}/calls")
    accounts(desk, "")
    return run


def accounts(desk: Desk, text: str) -> None:
    """Let sacct print these lines."""
    desk.write("sacct.out", text)
    desk.program("sacct", f"echo sacct >> {desk.folder}/calls\n/bin/cat {desk.folder}/sacct.out")


def end(run: RunDir, number: int, ending: str, **facts: Any) -> None:
    ended = {"ending": ending, "time": 1000.0 * number + 252, "progress": False, "last_step": 47, **facts}
    write_json(run.job(number).path / "ended.json", ended)


def why(desk: Desk) -> list[str]:
    said = desk.run("why", "demo", "--runs", "runs")
    assert (said.code, said.err) == (0, ""), said
    return said.out.splitlines()


def test_a_crash_is_told_with_its_last_error_and_the_command_that_may_help(desk: Desk, run: RunDir) -> None:
    run.job(2).log.write_text(TRACEBACK)
    end(run, 2, "crashed", reason="the GPU ran out of memory", exit_code=1, rank=0, saved_step=40)
    accounts(
        desk, "4712|COMPLETED|0:0|gpu002|24000M||00:10:00|00:04:12\n4712.batch|COMPLETED|0:0|gpu002||3G||00:04:12\n"
    )
    lines = why(desk)
    assert lines[0] == "demo is broken off."
    assert [line for line in lines if line.startswith(("job", "reason", "exit", "steps", "Slurm", "memory"))] == [
        "job       job 2 (4712), crashed",
        "steps     from step 40 to 47; the newest checkpoint is of step 40",
        "reason    the GPU ran out of memory",
        "exit      exit code 1, of rank 0",
        "Slurm     COMPLETED, exit code 0:0",
        "memory    3.2 GB of 25.2 GB on the host, as far as Slurm sampled it",
    ]
    assert any(line.startswith("ran ") and line.endswith("for 4:12, on gpu002") for line in lines)
    start = lines.index("the end of runs/demo/jobs/002/log.txt:")
    assert lines[start + 1 : start + 5] == [f"  | {line}" for line in TRACEBACK.splitlines()[5:9]]
    assert lines[-2:] == [
        "Fewer rows in a forward pass (now 6) take less memory of the GPU:",
        "  hpcft resume demo --set train.micro_batch_size=3",
    ]
    asked = (desk.folder / "calls").read_text().split()
    assert asked.count("sacct") == 1 and asked.count("squeue") <= 1


@pytest.mark.parametrize(
    "row, says, mended",
    [
        ("4712|OUT_OF_MEMORY|0:125|gpu002|8G||x|x", "OUT_OF_MEMORY, exit code 0:125: it used more host memory than it "
         "had asked for", "  hpcft resume demo --set resources.memory=12G"),
        ("4712|TIMEOUT|0:0|gpu002|8G||x|x", "TIMEOUT, exit code 0:0: its walltime ended before it had saved",
         "  hpcft resume demo --set resources.walltime=0:15:00"),
        ("4712|NODE_FAIL|1:0|gpu002|8G||x|x", "NODE_FAIL, exit code 1:0: its node failed",
         "Nothing in the run is to blame, and the next job goes on from its newest checkpoint."),
        ("4712|CANCELLED by 0|0:15|gpu002|8G||x|x", "CANCELLED by root, exit code 0:15: it was cancelled",
         "Once that is mended, `hpcft resume demo` goes on from its newest checkpoint."),
        ("", "its accounting does not know the job, or does not answer",
         "Once that is mended, `hpcft resume demo` goes on from its newest checkpoint."),
    ],
)  # fmt: skip
def test_of_a_job_that_left_no_word_slurm_says_what_it_died_of(
    desk: Desk, run: RunDir, row: str, says: str, mended: str
) -> None:
    accounts(desk, row + "\n")
    lines = why(desk)
    assert "job       job 2 (4712), no ending" in lines and "reason    all its processes were killed" in lines
    assert f"Slurm     {says}" in lines and lines[-1] == mended


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("4712|FAILED|1:0|gpu002|8G||x|x\n4712.batch|FAILED|1:0|gpu002||4G|x|x",
         "Nothing points at memory: it used 4.0 GiB of the 8 GiB that it had asked for. Somebody, or another program, "
         "killed it."),
        ("4712|FAILED|1:0|gpu002|8G||x|x\n4712.batch|FAILED|1:0|gpu002||7G|x|x",
         "More host memory than the 8 GiB that it had asked for:"),
        ("4712|OUT_OF_MEMORY|0:125|gpu002|8G||x|x\n4712.batch|OUT_OF_MEMORY|0:125|gpu002||4G|x|x",
         "More host memory than the 8 GiB that it had asked for:"),
    ],
)  # fmt: skip
def test_a_kill_from_outside_calls_for_more_memory_only_where_it_was_used(
    desk: Desk, run: RunDir, row: str, said: str
) -> None:
    end(run, 2, "crashed", reason="a worker was killed from outside, as the kernel does when memory is short")
    accounts(desk, row + "\n")
    lines = why(desk)
    assert lines[-2] == said
    resume = "hpcft resume demo"
    assert lines[-1] == (f"`{resume}` goes on from its newest checkpoint." if said.startswith("Nothing") else
                         f"  {resume} --set resources.memory=12G")  # fmt: skip


def test_on_this_machine_which_bounds_no_memory_no_more_of_it_is_asked_for(run: RunDir) -> None:
    here = Cluster(name="local", kind="local", runs="/r")
    lines = mend("demo", run.recipe, here, Evidence("a worker was killed from outside"), goes_on=True)
    assert lines == [
        "Whoever killed it left no word; if it was the kernel, short of memory, `dmesg` says so.",
        "The chain goes on by itself.",
    ]


def test_the_job_that_ran_says_more_than_those_that_left_the_queue_with_it(desk: Desk, run: RunDir) -> None:
    run.job(3).path.mkdir()
    write_json(run.job(3).path / "submitted.json", {"slurm_id": "4713", "walltime": 600, "time": 0})
    end(run, 2, "terminated", progress=True)
    accounts(desk, "4712|CANCELLED by 0|0:15|gpu002|8G||x|x\n")
    assert "job       job 2 (4712), terminated" in why(desk)
    end(run, 2, "walltime", progress=True)
    accounts(desk, "4713|CANCELLED by 0|0:0|||x|x|x\n")
    assert {"job       job 3 (4713), no ending", "reason    it never came to its first line"} <= set(why(desk))


def test_the_rows_of_a_loss_that_broke_are_named(desk: Desk, run: RunDir) -> None:
    reason = "/t.jsonl: non-finite loss (nan) at step 48, in rows [7, 12]."
    write_json(run.job(2).path / "fault.json", {"reason": reason, "fix": "Look at them."})
    end(run, 2, "refused", reason=reason)
    write_json(run.path / "halted.json", {"reason": reason, "fix": "Look at them.", "job": 2, "time": 0})
    lines = why(desk)
    assert lines[0] == f"demo is halted: {reason}"
    assert f"reason    {reason}" in lines
    assert lines[-1] == "  hpcft resume demo --set train.learning_rate=2.5e-05"


def test_where_nothing_went_wrong_that_is_said(desk: Desk, run: RunDir) -> None:
    end(run, 2, "finished", progress=True)
    write_json(run.path / "finished.json", {"step": 100})
    assert why(desk) == [
        "Nothing went wrong in demo, which is finished after 100 steps: of its jobs have ended 1 walltime, 1 finished."
    ]
    (run.path / "finished.json").unlink()
    end(run, 2, "stopped", progress=True)
    run.stop_file.touch()
    assert why(desk)[0].endswith("1 walltime, 1 stopped. `hpcft stop` paused it.")
    assert not (desk.folder / "calls").exists(), "all that is to be known lies in the run"


def test_a_disk_that_refuses_the_checkpoints_of_a_running_job_is_told_with_what_to_do(desk: Desk, run: RunDir) -> None:
    desk.program("squeue", "echo '4712|RUNNING|None|gpu002|1'")
    full = "the checkpoint of step 60 could not be written: no space left on device. Make room."
    beat = {"time": time.time(), "last_step": 61, "save_fault": full, "phase": "train"}
    write_json(run.job(2).path / "heartbeat.json", beat)
    assert why(desk) == [f"demo is running, at step 61, and cannot save: {full}"]
    told = desk.run("status", "demo", "--runs", "runs").out
    assert f"  save fault {full}\n" in told, told
    assert f"demo: {full}\n" in desk.run("status", "--runs", "runs").out
    write_json(run.job(2).path / "heartbeat.json", {**beat, "save_fault": None})
    assert "save fault" not in desk.run("status", "demo", "--runs", "runs").out


def test_a_slurm_that_is_away_is_said_and_nothing_is_concluded(desk: Desk, run: RunDir) -> None:
    desk.program("squeue", "exit 1")
    (line,) = why(desk)
    assert line.startswith("Nothing went wrong in demo, which is unknown") and "Slurm does not answer" in line


# --- the mend ---


@pytest.mark.parametrize(
    "reason, changes, change",
    [
        ("the GPU ran out of memory", {"train": {"batch_size": 8, "micro_batch_size": 8}}, "train.micro_batch_size=4"),
        ("the GPU ran out of memory", {"train": {"batch_size": 8, "micro_batch_size": 1}}, None),
        ("the job ran out of host memory", {"resources": {"memory": "60G"}}, "resources.memory=90G"),
        ("the job ran out of host memory", {"resources": {"memory": "4096"}}, "resources.memory=6G"),
        (
            "the walltime is too short",
            {"resources": {"walltime": "0:05:00"}},
            "resources.walltime=0:10:00",
        ),
        ("the walltime is too short", {"resources": {"walltime": "0:15:00"}}, None),
        ("5 jobs in a row were killed before they could save a step", {}, "train.save_every=50"),
        (
            "5 jobs in a row were killed before they could save a step",
            {"train": {"save_every": 500}},
            "train.save_every=250",
        ),
        ("the loss became infinite or no number", {"train": {"learning_rate": 1e-3}}, "train.learning_rate=0.0005"),
        ("a package is missing in the env: x", {}, None),
    ],
)
def test_each_mend_has_the_runs_own_numbers_and_is_a_change_that_a_resume_takes(
    desk: Desk, run: RunDir, reason: str, changes: dict[str, Any], change: str | None
) -> None:
    from hpcft.launch.chain import run_cluster

    raw = json.loads((run.path / "recipe.json").read_bytes())
    for section, values in changes.items():
        raw[section] |= values
    raw["resources"]["gpus"] = 1
    write_json(run.path / "recipe.json", Recipe.model_validate_json(json.dumps(raw)).model_dump(mode="json"))
    lines = mend("demo", run.recipe, run_cluster(run), Evidence(reason), goes_on=False)
    commands = [line.split("--set ")[1] for line in lines if line.startswith("  hpcft resume demo --set ")]
    assert commands == ([change] if change else [])
    assert standing(run, commands)[2] == []


@pytest.mark.parametrize(
    ("resources", "site", "change"),
    [
        ({}, {"max_walltime": None}, None),
        ({}, {"max_walltime": "30:00:00"}, None),
        ({"walltime": "20:00:00"}, {"max_walltime": "30:00:00"}, "resources.walltime=24:00:00"),
        ({"walltime": "24:00:00", "qos": "long"}, {"max_walltime": "30:00:00"}, "resources.walltime=48:00:00"),
        ({"walltime": "24:00:00", "partition": "B"}, {"max_walltime": "30:00:00"}, "resources.walltime=30:00:00"),
    ],
)
def test_a_longer_walltime_stays_within_the_limit_that_the_next_submission_is_held_to(
    run: RunDir, resources: dict[str, Any], site: dict[str, Any], change: str | None
) -> None:
    there = run.recipe.resources.model_copy(update={"walltime": None, **resources})
    cluster = Cluster(name="x", kind="slurm", runs="/r", partition="A", partition_walltime="24:00:00", **site)
    evidence = Evidence("the walltime is too short")
    lines = mend("demo", run.recipe.model_copy(update={"resources": there}), cluster, evidence, goes_on=False)
    said = "The walltime is 24:00:00, the longest here: a step and a save must take less."
    assert lines[-1] == (f"  hpcft resume demo --set {change}" if change else said)
