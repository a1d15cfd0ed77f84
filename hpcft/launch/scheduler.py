"""What the chain asks of whatever queues its jobs; slurm.py and local.py each give it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcft.launch import local, slurm
from hpcft.launch.cluster import Cluster
from hpcft.launch.submission import Submission
from hpcft.rundir import JobDir, RunDir


@dataclass(frozen=True)
class Payload:
    """What submitit pickles: a path and a number, so that the pickle is by reference and fits every python."""

    run: str
    number: int

    def __call__(self) -> str:
        """The ending of the job, in its batch process."""
        # By name, since launch stands below job; the code comes from the run's own copy.
        ending: str = importlib.import_module("hpcft.job.supervisor").run_job(self.run, self.number)
        return ending


class Scheduler(Protocol):
    """Queues jobs, held until released; each job begins when all jobs in `after` have ended, however they did."""

    def submit(self, submission: Submission) -> str:
        """The id of a new, held job. Raises UserError with the scheduler's own words."""

    def release(self, jobs: Sequence[JobDir]) -> None:
        """Let held jobs go."""

    def cancel(self, jobs: Sequence[JobDir]) -> None:
        """End these jobs, queued or running, in one go."""

    def orphans(self, run: RunDir) -> list[str]:
        """Ids of jobs that carry the run's mark but stand in no record."""

    def cancel_ids(self, ids: Sequence[str]) -> None:
        """End jobs known by id alone."""


class SlurmScheduler:
    """Slurm, through slurm.py."""

    def submit(self, submission: Submission) -> str:
        return slurm.submit(submission, Payload(str(submission.run), submission.number))

    def release(self, jobs: Sequence[JobDir]) -> None:
        slurm.release(_ids(jobs))

    def cancel(self, jobs: Sequence[JobDir]) -> None:
        slurm.cancel(_ids(jobs))

    def orphans(self, run: RunDir) -> list[str]:
        recorded = {job.slurm_id for job in run.jobs()}
        return [number for number in slurm.orphans(str(run.path)) if number not in recorded]

    def cancel_ids(self, ids: Sequence[str]) -> None:
        slurm.cancel(ids)


class LocalScheduler:
    """This machine: a keeper process starts the jobs one after the other."""

    def submit(self, submission: Submission) -> str:
        return local.submit(submission)

    def release(self, jobs: Sequence[JobDir]) -> None:
        if jobs:
            local.wake_keeper(RunDir(jobs[0].path.parent.parent))

    def cancel(self, jobs: Sequence[JobDir]) -> None:
        for job in sorted(jobs, key=lambda job: -job.number):  # the last first, so that none begins meanwhile
            local.cancel(job)

    def orphans(self, run: RunDir) -> list[str]:
        return []  # a local job is its record: there is nothing else that could be left over

    def cancel_ids(self, ids: Sequence[str]) -> None:
        del ids


def scheduler(cluster: Cluster) -> Scheduler:
    """The scheduler of this kind of cluster."""
    return SlurmScheduler() if cluster.kind == "slurm" else LocalScheduler()


def _ids(jobs: Sequence[JobDir]) -> list[str]:
    return sorted({job.slurm_id for job in jobs if job.slurm_id}, key=int)
