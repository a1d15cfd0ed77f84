"""The time left, against simulated runs whose end is known: evaluations, saves, starts and cuts are all in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcft.disk import write_json
from hpcft.launch.slurm import JobState
from hpcft.launch.status import Answer, RunStatus, read_status
from hpcft.rundir import RunDir

MARGIN = 10.0


@dataclass(frozen=True)
class Costs:
    """Seconds of what the jobs of a simulated run do."""

    steps: int = 400
    step: float = 9.0
    first_step: float = 40.0
    evaluation: float = 0.0
    every: int | None = None
    test: float = 0.0
    save: float = 20.0
    """Until it is on disk."""
    stall: float = 2.0
    """Of a save beside the steps."""
    save_every: int | str = 50
    start: float = 60.0
    tokenising: float = 0.0
    walltime: float = 36_000.0
    scatter: float = 0.1
    """Of a step's seconds."""
    border: int | None = None
    """Where a second phase begins."""
    longer: float = 1.0
    """By which its steps are longer, in tokens and in seconds."""


@dataclass
class Simulation:
    """Jobs that leave the records that real ones do, on a clock of their own."""

    folder: Path
    costs: Costs
    patch: pytest.MonkeyPatch
    now: float = 1e9
    looks: list[tuple[float, float | None, RunStatus]] = field(default_factory=list)
    """Job time so far, the time left by the status, and the status."""
    spent: float = 0.0
    """Job time of earlier jobs."""
    number: int = 0
    step: int = 0
    saved: int = 0
    begun: float = 0.0
    looked: float = 0.0

    def run(self) -> None:
        """From the first job to the last, with a look every hundredth of the steps and in each long phase."""
        costs, self.chance = self.costs, random.Random(0)
        self.run_dir = RunDir(self.folder / "demo")
        self.run_dir.jobs_folder.mkdir(parents=True)
        data = {"train": "/t.jsonl", "validation": "/v.jsonl" if costs.evaluation else None}
        data |= {"test": "/x.jsonl"} if costs.test else {}
        choices = ["a", "b"] if costs.test else None
        recipe = {"name": "demo", "task": "corpus", "model": {"path": "gpt2"}, "data": data,
                  "train": {"steps": costs.steps, "batch_size": 8, "save_every": costs.save_every},
                  "resources": {"gpus": 1}, "evaluate": {"every": costs.every, "choices": choices}}  # fmt: skip
        write_json(self.run_dir.path / "recipe.json", recipe)
        if costs.border:
            parts = (("one", costs.border), ("two", costs.steps - costs.border))
            recipe["phases"] = [{"name": name, "train": {"steps": steps}} for name, steps in parts]
            write_json(self.run_dir.path / "recipe.json", recipe)
        cluster = {"name": "here", "kind": "slurm", "runs": "x", "stop_margin": MARGIN}
        write_json(self.run_dir.path / "submission.json", {"cluster": cluster, "env": "/e"})
        write_json(self.run_dir.path / "queued.json", {"time": 0})
        while self.step < costs.steps:
            self.job()
            self.now += 300.0  # in the queue

    def job(self) -> None:
        """One job, until its walltime or the end of the run."""
        costs = self.costs
        self.number += 1
        self.begun, self.first = self.now, self.step
        self.facts: dict[str, Any] = {"phase": "start", "seconds": {}, "counts": {}, "start": {}}
        job = self.run_dir.job(self.number)
        job.path.mkdir()
        write_json(job.path / "submitted.json",
                   {"slurm_id": str(self.number), "walltime": costs.walltime, "gpus": 1, "time": self.now})  # fmt: skip
        write_json(job.path / "started.json", {"time": self.now, "node": "gpu1"})
        for phase, share in (("imports", 0.3), ("data", 0.1), ("model", 0.6)):
            more = costs.tokenising if phase == "data" and self.number == 1 else 0.0
            self.pass_time(share * costs.start + more)
            self.facts["start"][phase] = share * costs.start + more
        write_json(job.path / "resumed.json", {"step": self.step, "total_steps": costs.steps})
        self.write_phases()
        self.facts |= {"phase": "train", "validation_steps": 5.0}
        self.facts["save_seconds"] = costs.save * (1.3 if self.number == 1 else 1)  # first as a small file tells
        if self.step == 0 and costs.test:
            self.phase("test", costs.test)
        if self.step == 0 and costs.every:
            self.phase("evaluate", costs.evaluation)
        while self.step < costs.steps and self.time_left() > costs.step + costs.save:
            self.one_step()
            if self.step == costs.border:
                self.next_phase()
        if self.step == costs.steps:
            for phase, seconds in (("test", costs.test), ("save", costs.save), ("finish", costs.save)):
                if seconds:
                    self.phase(phase, seconds)
        elif self.saved < self.step:
            self.facts["stopping"] = "walltime"
            self.pass_time(self.chance.random() * costs.step)  # of a step that is dropped
            self.phase("save", costs.save)
        self.facts.pop("stopping", None)
        ending = "finished" if self.step == costs.steps else "walltime"
        wall = self.now - self.begun
        ended = {"ending": ending, "time": self.now, "wall_seconds": wall, "progress": True}
        write_json(job.path / "ended.json", {**self.facts, **ended})
        self.spent += wall

    def write_phases(self) -> None:
        """Where the phases lie, as the first job finds out."""
        costs, border = self.costs, self.costs.border
        if border is None:
            return
        spans = (("one", 0, border, 100.0), ("two", border, costs.steps, 100.0 * costs.longer))
        phases = [{"name": name, "begins": begins, "ends": ends, "step_tokens": tokens, "over": self.step >= ends}
                  for name, begins, ends, tokens in spans]  # fmt: skip
        write_json(self.run_dir.path / "phases.json", {"phases": phases})

    def next_phase(self) -> None:
        """What lies between two phases: a test, the save that is waited for, and a model that is loaded."""
        for phase, seconds in (("test", self.costs.test), ("save", self.costs.save)):
            if seconds:
                self.phase(phase, seconds)
        self.saved = self.step
        self.write_phases()
        self.facts["phase"] = "next phase"
        self.pass_time(self.costs.start)
        self.facts["phase"] = "train"

    def time_left(self) -> float:
        return self.begun + self.costs.walltime - MARGIN - self.now

    def one_step(self) -> None:
        costs, facts = self.costs, self.facts
        longer = costs.longer if costs.border is not None and self.step >= costs.border else 1.0
        seconds = costs.step * longer * (1 + costs.scatter * self.chance.uniform(-1, 1))
        if "first step" not in facts["start"]:
            seconds += costs.first_step - costs.step
            facts["start"]["first step"] = seconds
        self.pass_time(seconds)
        self.step += 1
        facts["seconds"]["train"] = facts["seconds"].get("train", 0.0) + seconds
        facts["last_step"] = self.step
        last = self.step in (costs.steps, costs.border)
        if costs.evaluation and (last or (costs.every and self.step % costs.every == 0)):
            self.phase("evaluate", costs.evaluation)
        if not last and self.step % (50 if costs.save_every == "auto" else costs.save_every) == 0:
            self.pass_time(costs.stall)
            self.facts |= {"save_stall_seconds": costs.stall, "save_seconds": costs.save}
            self.saved = self.step

    def phase(self, name: str, seconds: float) -> None:
        self.facts |= {"phase": name, "since": self.now}
        self.pass_time(seconds)
        self.facts["seconds"][name] = self.facts["seconds"].get(name, 0.0) + seconds
        self.facts["counts"][name] = self.facts["counts"].get(name, 0) + 1
        self.facts["phase"] = "train"
        if name == "save":
            self.facts["save_seconds"] = seconds

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with looks on the way."""
        end = self.now + seconds
        between = self.costs.steps * self.costs.step / 100
        while self.looked + between < end:
            self.now = self.looked = max(self.now, self.looked + between)
            self.look()
        self.now = end

    def look(self) -> None:
        job = self.run_dir.job(self.number)
        write_json(job.path / "heartbeat.json", {**self.facts, "time": self.now}, durable=False)
        self.patch.setattr("hpcft.launch.status.time", SimpleNamespace(time=lambda: self.now))
        status = read_status([self.run_dir], Answer({job.path: JobState("RUNNING", "", "gpu1")}, False))[0]
        self.looks.append((self.spent + self.now - self.begun, status.eta_seconds, status))


def simulate(folder: Path, patch: pytest.MonkeyPatch, **costs: Any) -> Simulation:
    simulation = Simulation(folder, Costs(**costs), patch)
    simulation.run()
    return simulation


def errors(simulation: Simulation) -> list[float]:
    """How far off the time left was, as a share of what was left, at every look after a tenth of the run.

    Of the last fiftieth a share says little: what is below it counts as that much.
    """
    total, found = simulation.spent, []
    for done, eta, status in simulation.looks:
        if status.step < simulation.costs.steps / 10:
            continue
        assert eta is not None, status
        found.append(abs(eta - (total - done)) / max(total - done, total / 50))
    assert len(found) > 80
    return found


@pytest.mark.parametrize(
    ("jobs", "costs"),
    [
        (1, {}),
        (1, {"evaluation": 300.0, "every": 50}),
        (1, {"evaluation": 120.0, "every": 40, "test": 200.0, "tokenising": 300.0}),
        (5, {"walltime": 900.0}),
        (6, {"walltime": 900.0, "evaluation": 60.0, "every": 60, "start": 120.0}),
        (3, {"walltime": 2000.0, "save_every": "auto", "save": 90.0, "tokenising": 200.0}),
        (1, {"border": 150, "longer": 3.0, "evaluation": 60.0, "every": 40, "test": 200.0}),
        (2, {"border": 220, "longer": 0.6, "walltime": 2000.0, "test": 30.0}),
        (1, {"steps": 5000, "step": 0.05, "first_step": 2.0, "save": 1.0, "save_every": 500, "start": 10.0}),
    ],
)
def test_after_a_tenth_of_the_run_the_time_left_is_right_within_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, costs: dict[str, Any]
) -> None:
    simulation = simulate(tmp_path, monkeypatch, **costs)
    assert max(errors(simulation)) < 0.10
    assert simulation.number >= jobs


def test_a_resume_makes_the_time_left_jump_by_less_than_a_twentieth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = simulate(tmp_path, monkeypatch, walltime=900.0, evaluation=60.0, every=60)
    looks = [(done, eta) for done, eta, _ in simulation.looks if done > simulation.spent / 10 and eta is not None]
    jumps = [abs(a + (later - done) - eta) for (done, eta), (later, a) in pairwise(looks)]
    assert max(jumps) < simulation.spent / 20


def test_evaluations_are_counted_where_they_are_due_and_an_unseen_last_one_is_guessed_from_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40 rows, forward only: a third of what 5 steps of 8 rows take.
    only_last = simulate(tmp_path / "last", monkeypatch, evaluation=15.0, scatter=0.0, save=0.0, stall=0.0)
    _, eta, status = only_last.looks[50]
    assert eta == pytest.approx((400 - status.step) * 9.0 + 15.0, abs=9.0)
