"""Keeps the local queue of one run: starts each job when the one before is gone. `python -m hpcft.launch.keeper RUN`"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from hpcft.disk import locked, write_json
from hpcft.ending import close_gone
from hpcft.launch import chain, local, notice, sweep
from hpcft.launch.scheduler import Payload
from hpcft.rundir import JobDir, RunDir

STILL_BORN = 2
"""Jobs that may die in a row before python reaches our code."""


def keep(run: RunDir) -> None:
    """Start jobs until none waits."""
    while local.next_job(run):
        lock = local.keeper_lock(run)
        if not lock.take(patience=5.0):
            return
        still_born = 0
        while job := local.next_job(run):
            run_one(run, job)
            still_born = still_born + 1 if (job.ended or {}).get("found_by") == "keeper" else 0
            if still_born == STILL_BORN:
                reason = f"{STILL_BORN} jobs in a row died before their first line."
                fact = {"reason": reason, "fix": "See `hpcft logs`.", "job": job.number, "time": time.time()}
                write_json(run.path / "halted.json", fact)
                chain.cancel_queued(run)
                with locked(run.lock.path):  # no job will come that could tell it
                    notice.tell(run, job)
                break
            # A job that was killed in its first second has not queued the next: Slurm would have that one already.
            chain.top_up(run, job.number)
        # After the lock is dropped, the outer loop looks once more: a job recorded meanwhile saw us still there.
        lock.drop()
    sweep.start_next(run)


def run_one(run: RunDir, job: JobDir) -> None:
    """Start one job and wait until it, and whatever ran before it, is gone."""
    while run.lock.held():
        time.sleep(0.1)
    if job.ended:
        return  # cancelled while it waited for its turn
    submission = chain.rebuild_submission(run, job.number, ())
    process = local.start(submission, Payload(str(run.path), job.number))
    try:
        process.wait()
    except KeyboardInterrupt:
        process.terminate()
        raise
    while run.lock.held():  # the controller may be killed apart from its job
        time.sleep(0.1)
    if job.started is None and job.ended is None:
        # It died before python reached our code; without this the keeper would start it again and again.
        close_gone(job, None, "keeper")


if __name__ == "__main__":
    try:
        keep(RunDir(Path(sys.argv[1])))
    except subprocess.SubprocessError as error:
        sys.exit(f"keeper: {error}")
