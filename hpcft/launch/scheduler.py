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


@dataclass(frozen=True)
class Queue:
    """What stands in the queue."""

    held: dict[str, bool]
    """Ids of the jobs that carry the run's mark, recorded or not, and whether each was never released."""
    jobs: int
    """All jobs of this user there, which is what a site limits."""


class Scheduler(Protocol):
    """Queues jobs, held until released; each job begins when all jobs in `after` have ended, however they did."""

    def submit(self, submission: Submission) -> str:
        """The id of a new, held job. Raises UserError with the scheduler's own words."""

    def release(self, jobs: Sequence[JobDir]) -> None:
        """Let held jobs go."""

    def cancel(self, jobs: Sequence[JobDir], more: Sequence[str] = ()) -> None:
        """End these jobs, queued or running, and some known by id alone, in one go."""

    def exclude(self, jobs: Sequence[JobDir], nodes: Sequence[str]) -> None:
        """Keep jobs that wait away from these nodes."""

    def queue(self, run: RunDir) -> Queue:
        """What of this run stands in the queue. Raises UserError if the scheduler does not say."""


class SlurmScheduler:
    """Slurm, through slurm.py."""

    def submit(self, submission: Submission) -> str:
        return slurm.submit(submission, Payload(str(submission.run), submission.number))

    def release(self, jobs: Sequence[JobDir]) -> None:
        slurm.release(_ids(jobs))
        for job in jobs:
            job.released.touch()

    def cancel(self, jobs: Sequence[JobDir], more: Sequence[str] = ()) -> None:
        slurm.cancel(sorted({*_ids(jobs), *more}, key=int))

    def exclude(self, jobs: Sequence[JobDir], nodes: Sequence[str]) -> None:
        slurm.exclude(_ids(jobs), nodes)

    def queue(self, run: RunDir) -> Queue:
        marked, jobs = slurm.marked(str(run.path))
        # A job that is held although we let it go was held by hand: whoever did that will release it.
        released = {job.slurm_id for job in run.jobs() if job.released.exists()}
        return Queue({number: held and number not in released for number, held in marked.items()}, jobs)


class LocalScheduler:
    """This machine: a keeper process starts the jobs one after the other."""

    def submit(self, submission: Submission) -> str:
        return local.submit(submission)

    def release(self, jobs: Sequence[JobDir]) -> None:
        if jobs:
            local.wake_keeper(RunDir(jobs[0].path.parent.parent))

    def cancel(self, jobs: Sequence[JobDir], more: Sequence[str] = ()) -> None:
        del more  # every local job has its record
        for job in sorted(jobs, key=lambda job: -job.number):  # the last first, so that none begins meanwhile
            local.cancel(job)

    def exclude(self, jobs: Sequence[JobDir], nodes: Sequence[str]) -> None:
        """Nothing: this machine is one node."""

    def queue(self, run: RunDir) -> Queue:
        # A local job is its record, and counts as held, since no keeper may know of it.
        waiting = [job for job in run.jobs() if job.submitted and not job.started and not job.ended]
        return Queue({job.slurm_id: True for job in waiting if job.slurm_id}, len(waiting))


def scheduler(cluster: Cluster) -> Scheduler:
    """The scheduler of this kind of cluster."""
    return SlurmScheduler() if cluster.kind == "slurm" else LocalScheduler()


def _ids(jobs: Sequence[JobDir]) -> list[str]:
    return sorted({job.slurm_id for job in jobs if job.slurm_id}, key=int)
