"""The other nodes of a job: what the supervisor knows of them, and that nothing there outlives it.

The processes are real; only srun is left out between supervisor and node.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcft.disk import write_json
from hpcft.job import others
from hpcft.job.others import Others
from hpcft.job.processes import Death
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Data, Model, Resources, Train
from tests.promise import descendants


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Others]:
    """The second node of a job on two, with two workers."""
    resources = Resources(nodes=2, gpus=0, processes=2)
    recipe = Recipe(name="r", task="corpus", model=Model(path="m"), data=Data(train="t"), resources=resources)
    run = RunDir(tmp_path)
    write_json(tmp_path / "recipe.json", recipe.model_copy(update={"train": Train(steps=1)}).model_dump(mode="json"))
    write_json(tmp_path / "submission.json", {"cluster": {"name": "c", "kind": "slurm", "runs": "/r"}})
    found = Others(run, run.job(1), recipe)
    command = [sys.executable, "-m", "hpcft.job.node", str(tmp_path), "1", "1", "127.0.0.1", "1"]
    with (tmp_path / "log").open("ab") as log:
        found._begin(command, {**os.environ, "SLURM_NODEID": "0", "SLURMD_NODENAME": "gpu2"}, log)
    wait(lambda: len(workers(found)) == 2 and bool(found._names))
    yield found
    found.let_go()
    found.wait()


def workers(node: Others) -> list[int]:
    """Processes that the node has started."""
    assert node._step
    return list(descendants(node._step.pid))


def wait(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_dies_there_is_known_at_once_by_rank_code_and_node(node: Others) -> None:
    assert node.deaths() == []
    os.kill(workers(node)[1], signal.SIGKILL)
    wait(lambda: node.ended, 2.0)
    assert node.deaths() == [Death(3, -9, node="gpu2")]


@pytest.mark.slow
def test_a_node_that_falls_silent_is_lost_and_sooner_when_a_worker_elsewhere_has_failed(
    node: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "DOUBT", 4.0)  # a word comes every second, and later from a busy machine
    node.hear_all()
    assert node.deaths() == []
    assert node._step
    os.kill(node._step.pid, signal.SIGSTOP)
    wait(lambda: time.monotonic() - max(node._heard.values()) > 4.5)
    assert node.deaths() == [], "a pause is no death"
    node.hear_all()
    (death,) = node.deaths()
    assert (death.rank, death.code, death.node) == (2, -9, "gpu2")
    assert death.why and death.why.reason == "the node gpu2 was lost: nothing is heard of it"
    there = workers(node)
    started = time.monotonic()
    node.wait()
    assert time.monotonic() - started < 2 * others.FORCED_PATIENCE + 1
    wait(lambda: not any(map(alive, there)))


def test_the_end_of_the_line_ends_the_workers_there_and_signals_do_not(node: Others) -> None:
    there = workers(node)
    assert node._step
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        os.kill(node._step.pid, number)
    wait(lambda: time.monotonic() - max(node._heard.values()) < 0.1)
    assert all(map(alive, there)) and node.deaths() == []
    node.let_go()
    node.wait()
    assert not any(map(alive, there)) and node._step.returncode == 0
