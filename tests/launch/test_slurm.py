"""Slurm: the script as it is sent, and what is read from squeue and sacct; recorded text, no Slurm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcft.errors import UserError
from hpcft.launch import slurm
from hpcft.launch.slurm import JobState
from hpcft.launch.submission import Submission
from tests.desk import Desk

SUBMISSION = Submission(
    run=Path("/runs/demo"),
    number=3,
    after=("4711", "4712"),
    python=Path("/envs/v100/bin/python"),
    setup=("module load cuda", "export PYTHONPATH=/runs/demo/code PYTHONSAFEPATH=1"),
    options=(("account", "lab"), ("gres", "gpu:V100:2"), ("nodes", "1"), ("ntasks", "1"), ("partition", "GPU")),
    walltime=7200,
)
SCRIPT = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --comment=hpcft:/runs/demo:3
#SBATCH --dependency=afterany:4711:4712
#SBATCH --gres=gpu:V100:2
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-003
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/demo/jobs/003/%j_0_log.out
#SBATCH --partition=GPU
#SBATCH --signal=B:USR2@180
#SBATCH --time=120

# setup
module load cuda
export PYTHONPATH=/runs/demo/code PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
exec /envs/v100/bin/python -u -m submitit.core._submit /runs/demo/jobs/003
"""


def test_the_script_is_exactly_this(desk: Desk) -> None:
    before = desk.tree()
    assert slurm.script(SUBMISSION) == SCRIPT
    assert desk.tree() == before


def test_the_first_job_depends_on_none_and_a_place_with_blanks_stays_one_word() -> None:
    first = Submission(Path("/my runs/demo"), 1, (), Path("/my envs/bin/python"), (), (("nodes", "1"),), 60)
    assert (
        slurm.script(first)
        == """\
#!/bin/bash

# Parameters
#SBATCH --comment='hpcft:/my runs/demo:1'
#SBATCH --hold
#SBATCH --job-name=hpcft-demo-001
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output='/my runs/demo/jobs/001/%j_0_log.out'
#SBATCH --signal=B:USR2@20
#SBATCH --time=1

# setup

# command
export SUBMITIT_EXECUTOR=slurm
exec '/my envs/bin/python' -u -m submitit.core._submit '/my runs/demo/jobs/001'
"""
    )


def test_submitting_sends_that_script_held_and_without_the_variables_of_a_job_around_us(desk: Desk) -> None:
    desk.program("sbatch", f'/bin/cat "$1" > {desk.folder}/sent; /usr/bin/env > {desk.folder}/env; '
                           "echo Submitted batch job 4713")  # fmt: skip
    for name, value in (("SLURM_CPU_BIND", "x"), ("SBATCH_QOS", "x"), ("SLURM_CONF", "/etc/slurm.conf")):
        desk.patch.setenv(name, value)
    run = desk.folder / "runs/demo"
    submission = Submission(run, 1, (), Path("/env/bin/python"), (), (("nodes", "1"),), 60)
    submission.folder.mkdir(parents=True)
    assert slurm.submit(submission, print) == "4713"
    assert (desk.folder / "sent").read_text() == slurm.script(submission)
    leaked = [line for line in (desk.folder / "env").read_text().splitlines() if line.startswith(("SLURM", "SBATCH"))]
    assert leaked == ["SLURM_CONF=/etc/slurm.conf"]
    assert os.environ["SLURM_CPU_BIND"] == "x"  # ours again


def test_a_refusal_that_is_not_known_says_sbatchs_own_words(desk: Desk) -> None:
    desk.program("sbatch", "echo 'sbatch: error: Batch job submission failed: The moon is full' >&2; exit 1")
    submission = Submission(desk.folder / "runs/demo", 1, (), Path("/env/bin/python"), (), (), 60)
    submission.folder.mkdir(parents=True)
    with pytest.raises(UserError) as refusal:
        slurm.submit(submission, print)
    assert str(refusal.value) == "sbatch: Batch job submission failed: The moon is full"


# --- what Slurm says of jobs ---

SQUEUE = """\
4711|RUNNING|None|gpu[001]
4712|PENDING|Dependency|
4713|PENDING|Resources|
4714|PENDING|ReqNodeNotAvail, UnavailableNodes:gpu[001-004]|
4715|PENDING|SomethingNew|
4716|PENDING|BadConstraints||0
9999|RUNNING|None|gpu002
"""
SACCT = """\
4700|COMPLETED|gpu001|0:0
4701|CANCELLED by 1000|gpu001|0:15
4702|OUT_OF_ME+|gpu002|0:125
4703||gpu002|
"""


def test_one_squeue_and_one_sacct_tell_the_state_of_all_jobs(desk: Desk) -> None:
    desk.write("squeue.txt", SQUEUE)
    desk.write("sacct.txt", SACCT)
    desk.program("squeue", f'echo squeue "$@" >> {desk.folder}/calls; /bin/cat {desk.folder}/squeue.txt')
    desk.program("sacct", f'echo sacct "$@" >> {desk.folder}/calls; /bin/cat {desk.folder}/sacct.txt')
    running, gone = ["4711", "4712", "4713", "4714", "4715", "4716"], ["4700", "4701", "4702", "4703", "4704"]
    assert slurm.query([*running, *gone]) == {
        "4711": JobState("RUNNING", "", "gpu[001]"),
        "4712": JobState("PENDING", "waits for the job before it"),
        "4713": JobState("PENDING", "next in line, waits for a free node"),
        "4714": JobState("PENDING", "the nodes it needs are away"),
        "4715": JobState("PENDING", "SomethingNew"),
        "4716": JobState("PENDING", "no node here has what it asks for: it will never start"),
        "4700": JobState("COMPLETED", "", "gpu001", "0:0", "sacct"),
        "4701": JobState("CANCELLED", "", "gpu001", "0:15", "sacct"),
        "4702": JobState("OUT_OF_ME", "", "gpu002", "0:125", "sacct"),
        "4703": JobState("UNKNOWN", "", "gpu002", "", "sacct"),
    }
    assert (desk.folder / "calls").read_text().splitlines() == [
        "squeue --me --noheader --states=all --format=%i|%T|%r|%N|%Q",
        "sacct -X -n -P -o JobID,State,NodeList,ExitCode -j 4700,4701,4702,4703,4704",
    ]


def test_no_job_is_no_question_and_a_silent_slurm_is_no_answer(desk: Desk) -> None:
    assert slurm.query([]) == {}
    assert slurm.query(["1"]) is None  # squeue is not on PATH
    desk.program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert slurm.query(["1"]) is None


def test_without_accounting_a_job_that_is_gone_is_simply_not_known(desk: Desk) -> None:
    desk.program("squeue", "exit 0")
    assert slurm.query(["1"]) == {}
    desk.program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert slurm.query(["1"]) == {}


MARKED = """\
1|4294901757|None|RUNNING|hpcft:/runs/demo:1
2|0|JobHeldUser|PENDING|hpcft:/runs/demo-2:1
3|0|None|COMPLETING|(null)
4|0|JobHeldUser|PENDING|hpcft:/runs/demo:2
5|0|None|PENDING|hpcft:/runs/demo:3
6|0|JobHeldAdmin|PENDING|hpcft:/runs/demo:4
7|0|JobHeldUser|PENDING|hpcft:/runs/other|hpcft:/runs/demo:5
8|4294901756|Dependency|PENDING|hpcft:/runs/demo:6
9|0|launch failed requeued held|PENDING|hpcft:/runs/demo:7
10|4294901755|Priority|PENDING|of mine, with
a second line
"""


def test_marked_jobs_are_those_of_just_this_run_with_whether_we_hold_each(desk: Desk) -> None:
    desk.write("squeue.txt", MARKED)
    desk.program("squeue", f'echo "$@" > {desk.folder}/calls; /bin/cat {desk.folder}/squeue.txt')
    assert slurm.marked("/runs/demo") == ({"1": False, "4": True, "5": True, "6": False, "8": False, "9": False}, 9)
    assert (desk.folder / "calls").read_text() == "--me --noheader --format=%A|%Q|%r|%T|%k\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784),
        ("02:03:04", 7384),
        ("3:04", 184),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
        ("-1:00", None),
    ],
)
def test_the_time_left_is_read_as_squeue_writes_it(text: str, seconds: int | None) -> None:
    assert slurm.seconds_left(text) == seconds


def test_the_end_is_what_squeue_says_then_what_the_job_was_told_then_unknown(desk: Desk) -> None:
    desk.patch.setenv("SLURM_JOB_END_TIME", "2000000000")
    desk.program("squeue", "echo 1:00:00")
    assert slurm.end_time("1") == pytest.approx(time.time() + 3600, abs=5)
    desk.program("squeue", "echo '17:00:00|2033-05-18T03:33:20'")
    moved = time.mktime((2033, 5, 18, 3, 33, 20, 0, 0, -1))
    assert slurm.end_time("1") == moved, "a preemption moves the end, and not what is left of the limit"
    desk.program("squeue", "exit 1")
    desk.program("squeue", "echo UNLIMITED")
    assert slurm.end_time("1") == 2e9
    desk.program("squeue", "exit 1")
    assert slurm.end_time("1") == 2e9
    desk.patch.delenv("SLURM_JOB_END_TIME")
    assert slurm.end_time("1") is None


def test_a_chain_is_cancelled_in_one_call_and_jobs_that_are_gone_do_not_matter(desk: Desk) -> None:
    gone = "scancel: error: Kill job error on job id 1: Invalid job id specified"
    desk.program("scancel", f'echo "$@" >> {desk.folder}/calls; echo "{gone}" >&2; exit 1')
    slurm.cancel(["1", "2", "3"])
    slurm.cancel([])
    assert (desk.folder / "calls").read_text() == "1 2 3\n"


def test_a_cancel_that_slurm_refuses_says_its_words(desk: Desk) -> None:
    desk.program("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(UserError) as refusal:
        slurm.cancel(["1"])
    assert str(refusal.value) == "scancel: Access/permission denied"
    (desk.folder / "bin/scancel").unlink()
    with pytest.raises(UserError) as refusal:
        slurm.cancel(["1"])
    assert str(refusal.value) == "scancel: is not on PATH. Run this on a node of the cluster."
