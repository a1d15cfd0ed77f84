"""The supervisor: the batch process of one job. It owns the signals and the workers, and says how the job ended."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.children import die_with_parent
from hpcft.disk import read_json, write_json
from hpcft.ending import close_gone, write_ending
from hpcft.errors import UserError
from hpcft.job import verdict
from hpcft.job.deadline import Deadline, Signals, save_need, slurm_attempt, slurm_job_id
from hpcft.job.environment import record_env
from hpcft.job.handover import claimed_by_later, take_lock
from hpcft.job.processes import Death
from hpcft.job.queueing import Queueing
from hpcft.job.tracking import Tracking
from hpcft.job.workers import REFUSED, Workers
from hpcft.launch import chain, envfacts, hub, local, nodes, notice, slurm, sweep
from hpcft.launch.cluster import Cluster
from hpcft.launch.envfit import modules_needed
from hpcft.launch.jobstatus import LIVE
from hpcft.launch.pace import jobs_needed
from hpcft.recipe import Recipe
from hpcft.rundir import CANCELLED, JobDir, RunDir
from hpcft.scratch import scratch_folder

TICK = 0.1
"""Seconds between two looks at workers and signals."""
BEAT = 1.0
"""Seconds between two heartbeats, and two looks for the user's STOP on the shared file system."""
STRAGGLER_PATIENCE = 60.0
"""Seconds between the end of the first worker and that of the last."""
QUEUEING_PATIENCE = 30.0
"""Seconds to wait for a sbatch that is under way before the rest of the queue is cancelled."""
TOO_LATE = verdict.Halt(
    "the workers had not saved when the walltime ended.", "Submit again with a cluster file that has more stop_margin."
)
STRAGGLER = verdict.Halt("a worker did not end though the others had.", "See `hpcft logs`.")
RESERVE_BYTES = 256 << 10


def run_job(run_path: str, number: int) -> str:
    """The ending of this job; everything else about it stands in the run directory."""
    signals = Signals()
    signals.install()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        die_with_parent()  # the controller stands for the allocation: without it nobody keeps the walltime
    run = RunDir(Path(run_path))
    job = run.job(number, slurm_attempt())
    if job.ended:
        return str(job.ended["ending"])
    job.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = run.lock
    if not take_lock(lock, run, job, lambda: signals.count("SIGTERM", "SIGINT") > 0):
        write_ending(job, "locked")
        return "locked"
    try:
        ending = supervise(run, job, signals)
        notice.tell(run, job)
        hand_on(run)
        return ending
    finally:
        lock.drop()


def hand_on(run: RunDir) -> None:
    """Where this run is over, queue one of its matrix that has waited for that; on this machine the keeper does."""
    if not (run.finished or run.halted or run.stop_file.exists()):
        return
    try:
        cluster = chain.run_cluster(run)
        if cluster.kind == "slurm" and cluster.jobs_may_submit:
            for other in sweep.start_next(run, leaving=1):
                print(f"hpcft: {other.name}, the next run of the matrix, is queued", flush=True)
    except (UserError, OSError) as error:
        print(f"hpcft: the next run of the matrix could not be queued: {error}", file=sys.stderr, flush=True)


def supervise(run: RunDir, job: JobDir, signals: Signals) -> str:
    """The ending of this job, also where the supervisor itself fails: the next job must not call it killed."""
    try:
        return Supervisor(run, job, signals).run()
    except Exception as error:
        traceback.print_exc()
        if not job.ended:
            reason = f"{type(error).__name__}: {error}"
            write_ending(job, "crashed", reason=reason, fix="See `hpcft logs`.", progress=False)
            if loop := verdict.crash_loop(run):
                verdict.halt(run, job, loop)
        return "crashed"


@dataclass
class Supervisor:
    """One job from its first second to its ending."""

    run_dir: RunDir
    job: JobDir
    signals: Signals
    recipe: Recipe = field(init=False)
    deadline: Deadline = field(init=False)
    started: float = field(default_factory=time.time)
    stop_reason: str | None = None
    last_beat: float = 0.0
    queueing: Queueing | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    """What rank 0 last said."""

    def run(self) -> str:
        """Decide, train, and record the ending."""
        run, job = self.run_dir, self.job
        self.recipe = run.recipe
        cluster = chain.run_cluster(run)
        walltime = float((job.submitted or {})["walltime"])
        if cluster.kind == "slurm":
            job_id = slurm_job_id() or ""
            self.deadline = Deadline(lambda: slurm.end_time(job_id), cluster.stop_margin)
        else:
            end = local.end_time(walltime)
            self.deadline = Deadline(lambda: end, cluster.stop_margin)
        self.deadline.begin(self.started, walltime)
        saved = run.saved_steps()
        self._hold_reserve()
        self._record_start(saved[-1] if saved else None)
        self._close_predecessors(saved[-1] if saved else None, cluster.kind == "slurm")
        if self._nothing_to_do():
            return self._end("idle")
        if loop := verdict.crash_loop(run):
            return self._halt(loop, "idle")
        if missing := envfacts.missing(list(modules_needed(self.recipe))):
            names = ", ".join(missing)
            halt = verdict.Halt(f"missing in the env {sys.prefix}: {names}.", "Install them there, then resume.")
            return self._halt(halt, "refused")
        if why := hub.absence(cluster, hub.run_model(run)):
            fix = f"`hpcft fetch {shlex.quote(str(run.path))}` brings it, then resume."
            return self._halt(verdict.Halt(why, fix), "refused")
        return self._train(cluster)

    def _record_start(self, saved: int | None) -> None:
        pid = os.getpid()
        record = {
            "time": self.started,
            "host": socket.gethostname(),
            "node": os.environ.get("SLURMD_NODENAME"),
            "pid": pid,
            "identity": local.process_identity(pid),
            "python": sys.executable,
            "end": self.deadline.end,
            "end_known": self.deadline.known,
            "saved_step": saved,
        }
        write_json(self.job.path / "started.json", record)

    def _hold_reserve(self) -> None:
        """Keep room for the records of this job's ending, should something fill the disk meanwhile."""
        with contextlib.suppress(OSError), self.run_dir.reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

    def _close_predecessors(self, newest: int | None, on_slurm: bool) -> None:
        """Write the ending of jobs that could not: we hold the lock, so none of them trains any more."""
        mine = (self.job.number, self.job.attempt)
        open_jobs = [job for job in self.run_dir.jobs() if (job.number, job.attempt) < mine and not job.ended]
        open_jobs = [job for job in open_jobs if job.submitted or job.started]
        ids = sorted({job.slurm_id for job in open_jobs if job.slurm_id})
        answer = slurm.query(ids) if on_slurm and ids else {}
        states = answer or {}
        for job in open_jobs:
            said = states.get(job.slurm_id or "", slurm.JobState(""))
            earlier_attempt = job.number == self.job.number or job.started is not None
            if said.state in LIVE and not earlier_attempt:
                continue  # it waits: somebody let us begin before it
            if answer is None and job.started is None:
                continue  # nothing is concluded from Slurm's silence
            close_gone(job, newest, "the next job", "" if said.state in LIVE else said.state, said.node)
            if on_slurm:
                self._keep_away_from_node_of(job)

    def _keep_away_from_node_of(self, job: JobDir, *, known_cause: bool = False) -> None:
        """Exclude the node of a failed job if the node is what failed, and say so."""
        if not (blame := nodes.blame(self.run_dir, job, known_cause=known_cause)):
            return
        print(f"hpcft: no further job goes to {blame.node}: {blame.reason}.", flush=True)
        try:
            chain.keep_away(self.run_dir, job, blame)
        except (UserError, OSError) as error:
            print(f"hpcft: jobs that wait may still go there: {error}", file=sys.stderr, flush=True)

    def _nothing_to_do(self) -> bool:
        run = self.run_dir
        return bool(run.finished or run.halted or run.stop_file.exists())

    def _train(self, cluster: Cluster) -> str:
        with scratch_folder() as scratch, Tracking(self.run_dir, self.job, self.recipe, cluster.internet) as tracking:
            workers = Workers(self.run_dir, self.job, self.recipe, scratch, cluster.internet)
            environment = {**os.environ, **hub.hub_variables(cluster)}
            try:
                workers.start(environment)
                tracking.start(environment)
                self.queueing = Queueing(self.run_dir, self.job.number, self._jobs_needed)
                self.queueing.start()
                record_env(self.run_dir, self.job)
                death = self._watch(workers)
            finally:
                workers.kill()
                progress = read_json(workers.progress_file) or {}
            ending = self._conclude(progress, death)
            tracking.end((self.deadline.end or math.inf) - time.time() - 2.0)  # all that matters is written by now
            return ending

    def _jobs_needed(self) -> int | None:
        """Jobs that the run needs after this one, at the pace of this job; None until it has a pace."""
        progress, resumed, end = self.progress, self.job.resumed, self.deadline.end
        if not resumed or not end or not progress.get("last_step"):
            return None
        step = int(progress["last_step"])
        trained, seconds = step - int(resumed["step"]), progress.get("seconds", {})
        if trained < 1 or not seconds.get("train"):
            return None
        # Evaluation recurs with the steps; start and save are paid once a job.
        left = (seconds["train"] + seconds.get("evaluate", 0.0)) / trained * (int(resumed["total_steps"]) - step)
        overhead = seconds.get("start", 0.0) + seconds.get("save", 0.0)
        walltime = float((self.job.submitted or {})["walltime"])
        return jobs_needed(left - (end - time.time()), walltime, overhead)

    def _watch(self, workers: Workers) -> Death | None:
        """Until all workers have ended; the first that failed, if one has."""
        first_end: float | None = None
        while not workers.all_ended():
            if workers.death():
                workers.settle()
                if death := workers.death():
                    return death
                continue  # a node that was silent has spoken again
            progress = self._beat(workers)
            self._look_for_reasons_to_stop(workers, progress)
            if self.stop_reason and "resume_step" not in progress:
                return None  # they are still starting: there is nothing to save, and an import cannot be asked to stop
            if self.stop_reason and self.deadline.end and time.time() > self.deadline.end - 1.0:
                return Death(0, -9, TOO_LATE)  # the scheduler is about to end us as well
            if workers.any_ended():
                first_end = first_end or time.monotonic()
                if time.monotonic() - first_end > STRAGGLER_PATIENCE:
                    return Death(0, -9, STRAGGLER)
            time.sleep(TICK)
        return workers.death()

    def _beat(self, workers: Workers) -> dict[str, Any]:
        """What rank 0 last said of its progress; passed on to the run directory every second."""
        progress = self.progress = read_json(workers.progress_file) or {}
        if time.monotonic() - self.last_beat >= BEAT:
            self.last_beat = time.monotonic()
            beat = {**progress, "time": time.time(), "stopping": self.stop_reason}
            with contextlib.suppress(OSError):  # a full or absent file system is no reason to end a job that trains
                write_json(self.job.path / "heartbeat.json", beat, durable=False)
                if self.run_dir.stop_file.exists():
                    # `hpcft cancel` writes it too, and we may see it before the signal comes.
                    cancelled = self.run_dir.stop_file.read_bytes() == CANCELLED
                    self._stop(workers, "terminated" if cancelled else "stopped")
                if claimed_by_later(self.run_dir, self.job):
                    self._stop(workers, "terminated")
        return progress

    def _look_for_reasons_to_stop(self, workers: Workers, progress: dict[str, Any]) -> None:
        save = save_need(progress, time.time())
        if reason := self.deadline.reason(self.signals, save, progress.get("poll_seconds", 0.0)):
            self._stop(workers, reason)

    def _stop(self, workers: Workers, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            workers.ask_to_stop(reason)
            if reason == "walltime" and self.queueing:
                self.queueing.look()  # somebody may have cancelled what was queued

    def _conclude(self, progress: dict[str, Any], death: Death | None) -> str:
        """The ending, from what the workers left."""
        fault = read_json(self.job.path / "fault.json")
        if self.run_dir.finished:
            return self._end("finished", progress)
        if death is None and self.stop_reason:
            return self._end(self.stop_reason, progress)
        if death and death.code == REFUSED and fault:
            return self._halt(verdict.Halt(fault["reason"], fault["fix"]), "refused", progress)
        code = death.code if death else 0
        why = death.why if death and death.why else verdict.explain_log(self.job.log, code)
        known = verdict.has_known_cause(self.job.log) or bool(death and death.why)
        ending = "killed" if code == -9 else "crashed"
        more = {"reason": why.reason, "fix": why.fix, "exit_code": code, "rank": death.rank if death else None}
        if death and death.node:
            more["node"] = death.node
        name = self._end(ending, {**progress, **more}, cancel=False)
        if slurm_job_id():
            self._keep_away_from_node_of(self.job, known_cause=known)
        if loop := verdict.crash_loop(self.run_dir):
            verdict.halt(self.run_dir, self.job, loop)
            self._cancel_rest()
        return name

    def _halt(self, why: verdict.Halt, ending: str, progress: dict[str, Any] | None = None) -> str:
        self.run_dir.reserve.unlink(missing_ok=True)
        verdict.halt(self.run_dir, self.job, why)
        return self._end(ending, {**(progress or {}), "reason": why.reason, "fix": why.fix})

    def _end(self, ending: str, facts: dict[str, Any] | None = None, *, cancel: bool = True) -> str:
        """Write the ending whole; where the chain is over, take what is queued out of the queue."""
        self.run_dir.reserve.unlink(missing_ok=True)
        saved = self.run_dir.saved_steps()
        before = (self.job.started or {}).get("saved_step") or 0
        record = {
            **(facts or {}),
            "time": time.time(),
            "wall_seconds": time.time() - self.started,
            "signals": self.signals.seen,
            "saved_step": saved[-1] if saved else None,
            "progress": (bool(saved) and saved[-1] > before) or self._evaluated(),
        }
        write_ending(self.job, ending, **record)
        if self.queueing:
            left = (self.deadline.end or math.inf) - time.time() - 1.0
            self.queueing.close(max(0.0, min(QUEUEING_PATIENCE, left)))
        if cancel and self._nothing_to_do():
            self._cancel_rest()
        return ending

    def _evaluated(self) -> bool:
        """Whether this job has answered test rows that no job before it had."""
        return any(path.stat().st_mtime > self.started for path in self.run_dir.evaluation.glob("*.json*"))

    def _cancel_rest(self) -> None:
        notice.tell(self.run_dir, self.job)  # first: should we be killed in it, the next job is still there to do it
        try:
            chain.cancel_queued(self.run_dir, behind=self.job.number)
        except UserError as error:
            print(f"hpcft: {error} Queued jobs will leave by themselves.", file=sys.stderr)
