"""Slurm: the only file that knows sbatch, squeue, sacct, scontrol, scancel and srun."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import submitit
from submitit.core.utils import FailedSubmissionError

from hpcft.errors import Fault, UserError
from hpcft.launch.submission import Submission

TIMEOUT = 60
"""Seconds after which a silent controller counts as lost for this call."""

PENDING_REASONS = {
    "Dependency": "waits for the job before it",
    "Resources": "next in line, waits for a free node",
    "Priority": "others are before it",
    "JobHeldUser": "held",
    "JobHeldAdmin": "held by an administrator",
    "launch failed requeued held": "a node failed to start it, and Slurm holds it: `scontrol release` lets it go",
    "JobHoldMaxRequeue": "Slurm has requeued it too often and holds it: `scontrol release` lets it go",
    "BeginTime": "waits for its earliest start",
    "ReqNodeNotAvail": "the nodes it needs are away",
    "PartitionDown": "the partition is down",
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "AssocMaxJobsLimit": "you already run as many jobs as you may",
    "QOSMaxJobsPerUserLimit": "you already run as many jobs as you may",
    "AssocGrpNodeLimit": "your group already uses its share of nodes",
    "BadConstraints": "no node here has what it asks for: it will never start",
    "AssocMaxWallDurationPerJobLimit": "its walltime is above your association's limit: it will never start",
    "QOSMaxWallDurationPerJobLimit": "its walltime is above the qos's limit: it will never start",
    "PartitionTimeLimit": "its walltime is above the partition's limit: it will never start",
}


@dataclass(frozen=True)
class JobState:
    """What Slurm says of one job."""

    state: str
    """Slurm's own word, without what it hangs on: `PENDING`, `CANCELLED`."""
    reason: str = ""
    """Why it is pending, in words where they are known."""
    node: str = ""
    exit_code: str = ""
    """`code:signal` of the batch process, from accounting."""
    source: str = "squeue"
    """Who said so."""


class _Executor(submitit.SlurmExecutor):
    """submitit's, less the wckey that some sites reject (submitit#1632), and usable where srun is not."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        lines = super()._make_submission_file_text(command, uid).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("#SBATCH --wckey"))

    def _submit_command(self, command: str) -> submitit.Job[Any]:
        """submitit's, but sbatch inherits the submit lock: should it outlive us, the next hpcft waits for it."""
        path = self.folder / f".submission-{os.getpid()}.sh"
        path.write_text(self._make_submission_file_text(command, ""))
        output = call("sbatch", str(path), inherits=True)
        job = self.job_class(folder=self.folder, job_id=self._get_job_id_from_submission_command(output), tasks=[0])
        job.paths.move_temporary_file(path, "submission_file", keep_as_symlink=True)
        return job

    def script(self) -> str:
        return self._make_submission_file_text(self._submitit_command_str, "")


def _executor(submission: Submission, hold: bool) -> _Executor:
    # A new one for each job: submitit keeps a dependency once set (1.5.4 drops None in update_parameters).
    executor = _Executor(folder=submission.folder, python=f"exec {shlex.quote(str(submission.python))}")
    more: dict[str, Any] = {
        **{key: value or True for key, value in submission.options},  # True is submitit's bare flag
        # B: and exec: only our supervisor gets the signal; without B: children die of it, without exec bash does.
        "signal": f"B:USR2@{submission.signal_lead}",
        "comment": submission.comment,
    }
    if hold:
        more["hold"] = True
    if submission.after:
        more["dependency"] = "afterany:" + ":".join(submission.after)
    executor.update_parameters(
        job_name=submission.job_name,
        time=math.ceil(submission.walltime / 60),
        use_srun=False,
        stderr_to_stdout=True,
        setup=list(submission.setup),
        additional_parameters=more,
    )
    return executor


def script(submission: Submission) -> str:
    """The exact text that `submit` gives to sbatch. Makes nothing on disk but what submitit needs."""
    return _executor(submission, hold=True).script()


def submit(submission: Submission, payload: Callable[[], object]) -> str:
    """The id of the new job, which is held until `release`. Raises UserError with what sbatch objects to."""
    with scrubbed_environment():
        try:
            return str(_executor(submission, hold=True).submit(payload).job_id)
        except FailedSubmissionError as error:  # sbatch's answer names no job
            raise UserError(Fault("sbatch", str(error))) from None
        except UserError as error:
            raise UserError([refused(submission, fault.what) for fault in error.faults]) from None


def refused(submission: Submission, words: str) -> Fault:
    """What sbatch objects to, from its own words."""
    from hpcft.launch import refusals, slurm_site  # only where it is needed

    options = {**dict(submission.options), "time": str(math.ceil(submission.walltime / 60))}
    return refusals.explain(Fault("sbatch", words), options, slurm_site.known_names)


def available() -> bool:
    """Whether sbatch is on PATH."""
    return shutil.which("sbatch") is not None


def exclude(ids: Sequence[str], nodes: Sequence[str]) -> None:
    """Keep jobs that wait away from these nodes, and no others. Raises UserError with scontrol's words."""
    if ids:
        call("scontrol", "update", f"JobId={','.join(ids)}", f"ExcNodeList={','.join(nodes)}")


def mail_at_end(job_id: str, address: str, name: str) -> None:
    """Have Slurm write a mail when this job ends, with this name in its subject. Raises UserError."""
    call("scontrol", "update", f"JobId={job_id}", f"JobName={name}", f"MailUser={address}", "MailType=END,FAIL")


def release(ids: Sequence[str]) -> None:
    """Let held jobs go, in one call. Raises UserError with scontrol's words."""
    if ids:
        call("scontrol", "release", ",".join(ids))


def cancel(ids: Sequence[str]) -> None:
    """Cancel these jobs in one call: a chain ended one by one would start its next. Gone ones do not matter."""
    if ids:
        call("scancel", *ids, tolerate="Invalid job id specified")


def query(ids: Sequence[str], account: Sequence[str] | None = None) -> dict[str, JobState] | None:
    """What Slurm says of these jobs: one squeue and at most one sacct. None if Slurm did not answer.

    `account`: those of them that accounting is asked for if the queue does not know them; all when not given. A
    job that neither knows is not in the result. Text, not --json: squeue 22.05 ignores its filters then, and
    later versions rename its fields.
    """
    if not ids:
        return {}
    try:
        # Without --jobs: squeue fails as a whole if one id of the list is no longer known.
        output = call("squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%N|%Q")
    except UserError:
        return None
    wanted, states = set(ids), {}
    for line in output.splitlines():
        number, state, reason, node, priority = (line.split("|") + [""] * 4)[:5]
        if number in wanted:
            reason = "JobHeldUser" if _held(priority, reason) else reason
            known = reason.partition(",")[0].replace("_", " ")  # "ReqNodeNotAvail, UnavailableNodes:gpu001"
            words = PENDING_REASONS.get(known, reason if reason != "None" else "")
            states[number] = JobState(state, words if state == "PENDING" else "", node)
    missing = sorted((wanted if account is None else set(account)) - set(states))
    if missing:
        states.update(_account(missing))
    return states


def _account(ids: Sequence[str]) -> dict[str, JobState]:
    """Ended jobs from accounting; nothing where a site has none."""
    try:
        output = call("sacct", "-X", "-n", "-P", "-o", "JobID,State,NodeList,ExitCode", "-j", ",".join(ids))
    except UserError:
        return {}
    states = {}
    for line in output.splitlines():
        number, state, node, exit_code = (line.split("|") + [""] * 3)[:4]
        # "CANCELLED by 1000", and "COMPLETED+" where sacct cut the word.
        states[number] = JobState((state.split() or ["UNKNOWN"])[0].rstrip("+"), "", node, exit_code, "sacct")
    return states


def marked(run: str) -> tuple[dict[str, bool], int]:
    """Ids of the jobs in the queue that carry this run's mark, and whether each is held by us; all jobs of the user.

    Raises UserError if Slurm is away.
    """
    output = call("squeue", "--me", "--noheader", "--format=%A|%Q|%r|%T|%k")
    # A comment of the user's own may have several lines; the first one of a job has all fields.
    fields = [each for line in output.splitlines() if len(each := line.split("|", 4)) == 5 and each[0].isdigit()]
    mine = {each[0]: _held(each[1], each[2]) for each in fields if each[4].startswith(f"hpcft:{run}:")}
    return mine, sum(each[3] != "COMPLETING" for each in fields)


def _held(priority: str, reason: str) -> bool:
    """Whether we hold a job: its priority is 0 from the start, and the reason says so a moment later.

    Others have it too: a job that an administrator holds, that no node can run, or whose launch has failed.
    """
    return priority == "0" and reason in ("", "None", "Dependency", "Priority", "Resources", "BeginTime", "JobHeldUser")


def end_time(job_id: str) -> float | None:
    """Seconds since the epoch at which Slurm will kill this job; None if it does not say.

    SLURM_JOB_END_TIME exists since 23.02; before that, and after a change of the end, squeue knows. Its time left is
    reckoned from the limit, which a preemption with a time of grace does not change; its end is what moves then.
    """
    try:
        with scrubbed_environment():  # SLURM_TIME_FORMAT would change how the end is written
            output = call("squeue", "--noheader", "--jobs", job_id, "--format=%L|%e")
    except UserError:
        output = ""
    left_text, _, end = output.strip().partition("|")
    with contextlib.suppress(ValueError, OverflowError):  # N/A, NONE
        return time.mktime(time.strptime(end, "%Y-%m-%dT%H:%M:%S"))
    left = seconds_left(left_text)
    if left is not None:
        return time.time() + left
    text = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isdigit() else None


def seconds_left(text: str) -> int | None:
    """Seconds in squeue's time left, `1-02:03:04`, `02:03:04`, `03:04`; None for UNLIMITED, INVALID and the like."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or len(parts) < 2 or (dash and not days.isdigit()):
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds + int(days or 0) * 86400


@contextlib.contextmanager
def scrubbed_environment() -> Iterator[None]:
    """Run a block without the SLURM_* and SBATCH_* variables of the job or srun shell that we may be in.

    They would leak into the new job (SLURM_CPU_BIND costs silent speed). SLURM_CONF names the cluster and stays.
    """
    before = dict(os.environ)
    leaking = [key for key in before if key.startswith(("SLURM_", "SBATCH_", "SRUN_", "SINFO_", "PMI_", "PMIX_"))]
    for key in leaking:
        if key != "SLURM_CONF":
            del os.environ[key]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def call(program: str, *arguments: str, tolerate: str | None = None, inherits: bool = False) -> str:
    """What the program printed. Raises UserError with its own words if it failed."""
    command = [program, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, close_fds=not inherits
        )
    except FileNotFoundError:
        raise UserError(Fault(program, "is not on PATH.", "Run this on a node of the cluster.")) from None
    except subprocess.TimeoutExpired:
        raise UserError(Fault(program, f"did not answer within {TIMEOUT} s.", "Try again later.")) from None
    tolerated = tolerate and all(tolerate in line for line in done.stderr.splitlines() if line.strip())
    if done.returncode and not tolerated:
        words = own_words(program, done.stderr or done.stdout)
        raise UserError(Fault(program, words or f"failed with exit code {done.returncode} and no word."))
    return done.stdout


def own_words(program: str, text: str) -> str:
    """What a program of Slurm's complained of, in one line, each complaint once and without its own name."""
    lines = (line.strip().removeprefix(f"{program}: ").removeprefix("error: ") for line in text.splitlines())
    return " ".join(dict.fromkeys(line for line in lines if line))
