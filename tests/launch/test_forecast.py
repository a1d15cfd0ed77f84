"""The forecast: jobs, time and GPU-hours from what an earlier run of the same kind has taken, or that it is unknown."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hpcft.launch.pace import jobs_needed
from hpcft.recipefile import read_recipe
from tests.desk import Desk

UNKNOWN = "unknown until the first job has run"


def earlier(desk: Desk, name: str, *overrides: str, time: float = 1.0, gpu: str = "V100", jobs: int = 1) -> Path:
    """A run of the desk's recipe whose jobs did 100 steps each, of 2 s: 40 s to start, 10 s a save, 5 s a look.

    A save stops training for 1 s of its 10.
    """
    run = desk.folder / "runs" / name
    recipe = read_recipe(desk.folder / "demo.yaml", overrides).recipe.model_dump(mode="json")
    cluster = {"name": "site", "gpu": gpu, "partition": "GPU", "kind": "slurm", "runs": "runs"}
    facts = {
        "recipe.json": recipe,
        "submission.json": {"recipe": recipe, "cluster": cluster, "env": "env", "time": time},
        "features/train/complete.json": {"rows": 4000, "tokens": 400_000, "longest": 512},
    }
    for number in range(1, jobs + 1):
        first, last = 100 * (number - 1), 100 * number
        seconds = {"train": 200.0, "save": 10.0, "evaluate": 5.0}
        ended = {"ending": "walltime", "last_step": last, "wall_seconds": 255.0, "seconds": seconds, "time": 1.0}
        facts |= {
            f"jobs/{number:03d}/submitted.json": {"slurm_id": "7", "walltime": 300},
            f"jobs/{number:03d}/resumed.json": {"step": first, "total_steps": 4000},
            f"jobs/{number:03d}/ended.json": {**ended, "save_seconds": 10.0, "save_stall_seconds": 1.0},
        }
    for path, value in facts.items():
        desk.write(f"runs/{name}/{path}", json.dumps(value))
    return run


def plan_of(desk: Desk, *arguments: str) -> dict[str, str]:
    """The lines of a dry run's plan."""
    lines = desk.accepts(*arguments).partition("# plan\n")[2].splitlines()
    return {line[2:14].strip(): line[15:] for line in lines}


def test_jobs_time_and_gpu_hours_come_from_the_earlier_run_that_is_named(desk: Desk) -> None:
    earlier(desk, "demo", jobs=2)
    plan = plan_of(desk, "--set", "train.steps=9000")
    # 18,000 s of steps; sqrt(2 x 1 s x a day) is 208 of them, so 43 saves stop it for 1 s. Each job loses 40 s + 10 s,
    # and keeps 10 s to spare: 18043 / 7140.
    assert plan["jobs needed"] == ("3, from 2 s a step, 0:40 to start and 0:10 to save, as measured in 2 jobs of demo")
    assert plan["job time"] == "5:03:13 without queue waits, 99% of it trains"
    assert plan["GPU-hours"] == "5.1"
    often = plan_of(desk, "--set", "train.steps=9000", "--set", "train.save_every=10")
    assert often["job time"].startswith("5:17:30 "), "900 saves"
    two = plan_of(desk, "--set", "train.steps=9000", "--set", "resources.jobs=2")
    assert two["jobs needed"].endswith("; resources.jobs = 2 ends the chain before")


def test_what_changes_the_time_of_a_step_makes_the_earlier_run_no_measure(desk: Desk) -> None:
    earlier(desk, "demo")
    other = ("data.max_length=64", "train.micro_batch_size=2", "train.precision=fp16", "resources.gpus=2")
    assert [plan_of(desk, "--set", given)["jobs needed"] for given in other] == [UNKNOWN] * 4
    desk.change("gpu: V100", "gpu: A100", "site.yaml")
    assert plan_of(desk)["jobs needed"] == UNKNOWN
    assert plan_of(desk)["GPU-hours"] == UNKNOWN


def test_a_run_on_the_same_rows_comes_before_a_newer_one_on_others(desk: Desk) -> None:
    desk.write("few.jsonl", '{"text": "good day", "label": "glad"}\n')
    earlier(desk, "same")
    earlier(desk, "other", "data.train=few.jsonl", time=9.0)
    assert plan_of(desk)["jobs needed"].endswith("1 job of same")
    assert plan_of(desk, "--set", "data.train=few.jsonl")["jobs needed"].endswith("1 job of other")


def test_epochs_are_steps_where_an_earlier_run_has_counted_the_rows(desk: Desk) -> None:
    earlier(desk, "demo")
    epochs = ("--set", "train.steps=null", "--set", "train.epochs=20")
    assert plan_of(desk, *epochs)["jobs needed"].startswith("3, ")  # 10,000 steps
    desk.write("few.jsonl", '{"text": "good day", "label": "glad"}\n')
    assert plan_of(desk, *epochs, "--set", "data.train=few.jsonl")["jobs needed"] == UNKNOWN


def test_so_they_are_where_a_step_is_given_in_tokens(desk: Desk) -> None:
    earlier(desk, "demo", "train.batch_tokens=4000")
    tokens = ("--set", "train.batch_tokens=4000", "--set", "train.steps=null", "--set", "train.epochs=100")
    assert plan_of(desk, *tokens)["jobs needed"].startswith("3, ")  # 100 steps an epoch


def test_a_walltime_without_time_for_a_step_is_said(desk: Desk) -> None:
    earlier(desk, "demo")
    assert plan_of(desk, "--set", "resources.walltime=1:00")["jobs needed"] == (
        "no number is enough: 2 s a step, 0:40 to start and 0:10 to save leave no time in 1:00 "
        "(as measured in 1 job of demo)"
    )


def test_a_run_that_never_trained_or_is_broken_tells_nothing(desk: Desk) -> None:
    run = earlier(desk, "demo")
    (run / "jobs/001/ended.json").write_text('{"ending": "killed", "time": 1.0}')
    (desk.folder / "runs/half").mkdir()
    desk.write("runs/half/recipe.json", "{}")
    assert plan_of(desk)["jobs needed"] == UNKNOWN
    earlier(desk, "newer", time=2.0)
    (desk.folder / "runs/newer/recipe.json").write_text('{"name": "newer", "key": "of another hpcft"}')
    assert plan_of(desk)["jobs needed"] == UNKNOWN
    earlier(desk, "older")
    assert plan_of(desk)["jobs needed"].endswith("1 job of older")


def test_the_name_in_the_plan_is_the_one_that_the_run_will_get(desk: Desk) -> None:
    earlier(desk, "demo")
    assert plan_of(desk)["run"] == "runs/demo-2"
    assert re.findall(r"--job-name=(\S+)", desk.accepts()) == ["hpcft-demo-2-001"]


def test_a_job_that_has_no_time_for_work_is_never_enough() -> None:
    assert [jobs_needed(*case) for case in ((0, 60, 70), (1, 60, 60), (1, 60, 59), (120, 70, 10), (121, 70, 10))] == [
        0, None, 1, 2, 3,
    ]  # fmt: skip
