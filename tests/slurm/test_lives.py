"""The chain lives: what else happens to jobs on a cluster, done for real, and the weights are still those of one job.

All happens at once in a Slurm of its own, a node for each kind of trouble. First its controller is away for a
minute, and its accounting does not come back at all.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcft.launch import chain
from hpcft.rundir import JobDir, RunDir
from tests.slurm.conftest import need_slurm
from tests.slurm.lab import Lab
from tests.slurm.pace import slow_env
from tests.slurm.runs import Site, is_training, kill_job, leaves_nothing, make_site, queue

STEPS = 110
SAVE_EVERY = 15
LONG = 240.0
AWAY = 60.0
"""Seconds without a controller."""


def others_than(*nodes: str) -> list[str]:
    """All nodes but these."""
    return [f"gpu{number}" for number in range(1, 5) if f"gpu{number}" not in nodes]


class Stage:
    """The Slurm, and the sites of all the runs on it."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.folder, self.lab = folder, lab
        self.env = slow_env(folder / "env")
        self._making = threading.Lock()

    def submit(self, name: str, *overrides: str, **cluster: object) -> tuple[Site, RunDir]:
        """A run of the same recipe as all others; `cluster` says where."""
        recipe = {"name": name, "env": str(self.env), "resources": {"queued": 1}}
        recipe["train"] = {"steps": STEPS, "save_every": SAVE_EVERY}
        recipe["evaluate"] = {"every": 50}
        with self._making:  # transformers cannot be imported by two threads at once
            site = make_site(self.folder / name, self.lab, recipe, **cluster)
        site.submit(*overrides)
        return site, site.run(name)

    def begun(self, name: str, *overrides: str, **cluster: object) -> tuple[Site, RunDir]:
        """The same, once its first job trains."""
        site, run = self.submit(name, *overrides, **cluster)
        trains(site, run.job(1))
        return site, run


def trains(site: Site, job: JobDir, steps: int = 5) -> None:
    site.wait(f"job {job.path.name} to train", lambda: is_training(job, steps), LONG)


def finishes(site: Site, run: RunDir) -> RunDir:
    site.wait("the run to finish", lambda: bool(run.finished or run.halted), LONG)
    assert run.finished, site.describe()
    assert leaves_nothing(site.lab, run)
    return run


def start_again(site: Site, run: RunDir) -> JobDir:
    """The second attempt at job 1 once it trains; Slurm would let it wait two minutes."""
    number = run.job(1).slurm_id or ""
    site.wait("job 1 to be requeued", lambda: queue(site.lab, run).get(number, ("", ""))[0] == "PENDING", LONG)
    site.wait("its ending", lambda: run.job(1).ended is not None or run.job(1, 2).started is not None, LONG)
    status = site.status(run)
    assert (status["state"], status["jobs"][0]["state"]) == ("queued", "PENDING")
    site.lab.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    trains(site, run.job(1, 2))
    return run.job(1, 2)


def scancel_of_head_middle_and_last(stage: Stage) -> RunDir:
    site, run = stage.begun("scancel", "resources.queued=3", exclude=others_than("gpu1"))
    ids = [job.slurm_id or "" for job in run.jobs()]
    assert len(ids) == 4
    site.lab.run("scancel", ids[2])
    site.lab.run("scancel", ids[3])
    assert set(queue(site.lab, run)) == set(ids[:2]), "the others stay"
    site.lab.run("scancel", ids[0])
    trains(site, run.job(2))
    first, second = run.job(1).ended or {}, run.job(2).resumed or {}
    assert first["ending"] == "terminated" and second["step"] == first["last_step"] == first["saved_step"]
    site.wait("the queue to be filled again", lambda: len(queue(site.lab, run)) == 4)
    assert [(run.job(number).ended or {})["ending"] for number in (3, 4)] == ["cancelled", "cancelled"]
    return finishes(site, run)


def hold(stage: Stage) -> RunDir:
    site, run = stage.begun("hold", exclude=others_than("gpu1"))
    one, two = (run.job(number).slurm_id or "" for number in (1, 2))
    site.lab.run("scontrol", "uhold", two)
    chain.top_up(run, 1)
    assert "JobHeldUser" in site.lab.run("squeue", "-h", "-j", two, "-o", "%r"), "what the user holds stays held"
    site.lab.run("scontrol", "hold", two)  # we are an administrator here
    site.lab.run("scancel", one)
    site.wait("job 1 to end", lambda: run.job(1).ended is not None)
    site.wait("the word", lambda: (site.status(run)["state"], site.status(run)["note"])
              == ("queued", "held by an administrator"))  # fmt: skip
    assert "is queued already" in site.hpcft("resume", run.name, code=2)
    assert run.job(2).started is None
    site.lab.run("scontrol", "release", two)
    return finishes(site, run)


def requeue(stage: Stage) -> RunDir:
    site, run = stage.begun("requeue", exclude=others_than("gpu1"))
    site.lab.run("scontrol", "requeue", run.job(1).slurm_id or "")
    again = start_again(site, run)
    ended = run.job(1).ended or {}
    assert (
        ended["ending"] == "terminated" and (again.resumed or {})["step"] == ended["saved_step"] == ended["last_step"]
    )
    assert queue(site.lab, run)[run.job(2).slurm_id or ""][0] == "PENDING", "who waits for the job waits on"
    assert (site.status(run)["state"], len(site.status(run)["jobs"])) == ("running", 3)
    finishes(site, run)
    assert [job.path.name for job in run.jobs() if job.started] == ["001", "001.2"]
    return run


def preemption(stage: Stage) -> RunDir:
    site, run = stage.begun("preempt", partition="preempt", options={"nodelist": "gpu2"})
    site.lab.run("sbatch", "-p", "GPU", "-w", "gpu2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    again = start_again(site, run)
    ended = run.job(1).ended or {}
    assert ended["ending"] == "terminated" and (again.resumed or {})["step"] == ended["saved_step"]
    return finishes(site, run)


def nodes_that_fail(stage: Stage) -> tuple[RunDir, RunDir]:
    """One run loses its processes with the node; the node of the other has only lost the controller, and trains on."""
    where = {"exclude": others_than("gpu3", "gpu4")}
    site, dead = stage.submit("powerless", **where)
    other, cut_off = stage.begun("cutoff", **where)
    trains(site, dead.job(1), SAVE_EVERY + 5)
    assert {(run.job(1).started or {})["node"] for run in (dead, cut_off)} == {"gpu3"}
    site.lab.run("scontrol", "update", f"JobId={dead.job(1).slurm_id}", "Requeue=0")
    site.lab.stop_daemons(["slurmd.gpu3"], kill=True)
    kill_job(site.lab, dead.job(1).slurm_id or "")
    site.lab.run("scontrol", "update", "NodeName=gpu3", "State=DOWN", "Reason=lost")
    trains(site, dead.job(2))
    ended = dead.job(1).ended or {}
    assert (ended["ending"], ended["slurm_state"]) == ("killed", "NODE_FAIL")
    assert ended["reason"] == "all its processes were killed: its node failed"
    assert (dead.job(2).resumed or {})["step"] >= SAVE_EVERY and (dead.job(2).started or {})["node"] == "gpu4"

    number = cut_off.job(1).slurm_id or ""
    other.wait("job 1 to be requeued", lambda: queue(site.lab, cut_off)[number][0] == "PENDING", LONG)
    assert cut_off.job(1).ended is None, "it trains on, where nobody can reach it"
    site.lab.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    trains(other, cut_off.job(1, 2))
    ended = cut_off.job(1).ended or {}
    assert ended["ending"] == "terminated" and (cut_off.job(1, 2).resumed or {})["step"] == ended["last_step"]
    return finishes(site, dead), finishes(other, cut_off)


def a_broken_gpu(stage: Stage) -> RunDir:
    broken = ["export BROKEN_GPU=gpu1"]
    site, run = stage.submit("broken", "resources.queued=2", exclude=others_than("gpu1", "gpu4"), setup=broken)
    trains(site, run.job(2))
    assert [(run.job(number).started or {})["node"] for number in (1, 2)] == ["gpu1", "gpu4"]
    assert (run.job(1).ended or {})["ending"] == "crashed"
    said = "no further job goes to gpu1: job 1 failed there: uncorrectable ECC."
    assert said in site.hpcft("logs", run.name)
    waiting = [number for number, (state, _) in queue(site.lab, run).items() if state == "PENDING"]
    site.wait("the queue behind it", lambda: len(queue(site.lab, run)) == 3)
    for number in waiting:
        words = site.lab.run("scontrol", "--oneliner", "show", "job", number).split()
        left_out = next(word.partition("=")[2] for word in words if word.startswith("ExcNodeList="))
        assert set(left_out.split(",")) in ({"gpu1", "gpu2", "gpu3"}, {"gpu[1-3]"})
    return finishes(site, run)


def the_whole_chain_up_front(stage: Stage) -> RunDir:
    where = {"exclude": others_than("gpu1"), "jobs_may_submit": False, "max_submit": 40}
    site, run = stage.begun("upfront", "resources.jobs=4", **where)
    assert len(run.jobs()) == 4
    site.lab.run("scancel", run.job(1).slurm_id or "")
    trains(site, run.job(2))
    finishes(site, run)
    assert len(run.jobs()) == 4
    return run


TROUBLES: dict[str, Callable[[Stage], RunDir | tuple[RunDir, ...]]] = {
    "scancel": scancel_of_head_middle_and_last,
    "hold": hold,
    "requeue": requeue,
    "preemption": preemption,
    "nodes": nodes_that_fail,
    "broken GPU": a_broken_gpu,
    "up front": the_whole_chain_up_front,
}


def a_lost_controller(stage: Stage) -> Callable[[], RunDir]:
    """What the commands say while slurmctld and slurmdbd are away for a minute; then the end of the run."""
    site, run = stage.begun("lost")
    site.lab.stop_daemons(["slurmctld", "slurmdbd"])
    begun, before = time.monotonic(), dict(run.job(1).heartbeat or {})
    try:
        status = site.status(run)
        assert (status["state"], status["note"]) == ("unknown", "Slurm does not answer.")
        refused = site.hpcft("submit", str(site.recipe), "--set", "name=refused", code=2)
        assert "Unable to contact slurm controller" in refused and len(refused.splitlines()) == 1
        assert not site.run("refused").path.exists()
        assert "does not say" in site.hpcft("resume", run.name, code=2)
        time.sleep(max(0.0, AWAY - (time.monotonic() - begun)))
        assert (run.job(1).heartbeat or {})["last_step"] > before["last_step"] + 20, "it trains on"
    finally:
        site.lab.start_daemon("slurmctld")
    site.wait("Slurm to be back", lambda: site.status(run)["state"] in ("running", "finished"))
    return lambda: finishes(site, run)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    need_slurm()
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    lab = Lab(folder, nodes=4, dies_with_parent=True)
    with pytest.MonkeyPatch.context() as patch:
        try:
            lab.start()
            patch.setenv("SLURM_CONF", str(lab.conf))
            yield Stage(tmp_path_factory.mktemp("lives"), lab)
        finally:
            lab.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def outcomes(stage: Stage) -> Iterator[dict[str, Future[RunDir | tuple[RunDir, ...]]]]:
    with ThreadPoolExecutor() as pool:
        lost = a_lost_controller(stage)
        yield {
            "uncut": pool.submit(lambda: finishes(*stage.submit("uncut"))),
            "lost controller": pool.submit(lost),
            **{name: pool.submit(trouble, stage) for name, trouble in TROUBLES.items()},
        }


def weights(run: RunDir) -> bytes:
    return (run.final_model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("trouble", ["lost controller", *TROUBLES])
def test_the_weights_are_those_of_the_uncut_run_after(
    outcomes: dict[str, Future[RunDir | tuple[RunDir, ...]]], trouble: str
) -> None:
    runs, uncut = outcomes[trouble].result(LONG), outcomes["uncut"].result(LONG)
    assert isinstance(uncut, RunDir) and len(uncut.jobs()) == 2
    for run in runs if isinstance(runs, tuple) else (runs,):
        assert weights(run) == weights(uncut)
