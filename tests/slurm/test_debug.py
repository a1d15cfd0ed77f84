"""`hpcft debug` on a terminal: a shell on the compute node, in the env, and nothing left behind."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pexpect
import pytest

from tests.slurm.lab import Lab
from tests.slurm.processes import eventually, job_processes
from tests.slurm.runs import HPCFT, Site, make_site, queue

PROMPT = r"\[hpcft tiny on [^\]]+\] [^\r\n]*[$#] "


class Shell:
    """The shell that `hpcft debug` opens, as a person types into it."""

    def __init__(self, site: Site, *options: str) -> None:
        command = ["debug", str(site.recipe), *options]
        self.terminal = pexpect.spawn(str(HPCFT), command, env=site.environment(), encoding="utf-8", timeout=60)
        self.terminal.setecho(False)
        self.terminal.setwinsize(50, 200)
        self.terminal.expect(PROMPT)

    def ask(self, line: str) -> str:
        """What a line of shell says."""
        self.terminal.sendline(f"echo begin-$((1000+1)); {line}; echo end-$((1000+2))")
        self.terminal.expect(r"begin-1001\r*\n(.*?)end-1002")
        answer = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.terminal.match[1])
        self.terminal.expect(PROMPT)
        return answer.replace("\r", "").strip()

    def leave(self, code: int = 0) -> int:
        """The exit code of the command, after `exit`."""
        self.terminal.sendline(f"exit {code}")
        self.terminal.expect(pexpect.EOF)
        self.terminal.close()
        assert self.terminal.exitstatus is not None
        return self.terminal.exitstatus


@pytest.fixture
def site(slurm: Lab, tmp_path: Path) -> Site:
    return make_site(tmp_path, slurm, setup=["export FROM_THE_CLUSTER=1"], debug_options={"partition": "debug"})


@pytest.mark.parametrize("place", ["slurm", "local"])
def test_a_shell_as_a_job_would_have_it(site: Site, place: str) -> None:
    shell = Shell(site, *(["--cluster", "local"] if place == "local" else []))
    assert shell.ask("which python") == str(Path(sys.prefix) / "bin/python")
    assert shell.ask('python -c "import torch, hpcft; print(torch.ones(2).sum().item())"') == "2.0"
    assert shell.ask("echo $OMP_NUM_THREADS $PYTHONNOUSERSITE") == "1 1"
    assert shell.ask("echo ${SLURM_NTASKS-unset} ${SLURM_PROCID-unset} ${SLURM_STEP_ID-unset}") == "unset unset unset"
    job = shell.ask("echo $SLURM_JOB_ID")
    if place == "slurm":
        assert shell.ask("echo $SLURMD_NODENAME").startswith("gpu")
        assert shell.ask("echo $FROM_THE_CLUSTER") == "1"
        facts = site.lab.run("squeue", "--noheader", "--format=%j %P %T %l", f"--jobs={job}")
        assert facts == "hpcft-debug-tiny debug RUNNING 30:00"
    else:
        assert job == ""
    assert shell.leave() == 0
    assert not list(site.runs.iterdir()), "the file that bash has read is gone"
    assert eventually(lambda: not queue(site.lab) and not job_processes(site.lab.folder), seconds=20)


def test_the_exit_code_is_the_shells_and_a_walltime_takes_the_jobs_partition(site: Site) -> None:
    shell = Shell(site, "--walltime", "0:05:00")
    job = shell.ask("echo $SLURM_JOB_ID")
    assert site.lab.run("squeue", "--noheader", "--format=%P %l", f"--jobs={job}") == "GPU 5:00"
    assert shell.leave(3) == 3


def test_a_terminal_that_closes_leaves_nothing(site: Site) -> None:
    shell = Shell(site)
    job = shell.ask("echo $SLURM_JOB_ID")
    with contextlib.suppress(pexpect.ExceptionPexpect):  # it says so if hpcft has not ended within 0.3 s
        shell.terminal.close(force=False)
    site.wait("the job to go", lambda: job not in queue(site.lab) and not job_processes(site.lab.folder), 30)
    assert not list(site.runs.iterdir())


def test_a_dry_run_prints_the_command_and_opens_nothing(site: Site) -> None:
    text = site.hpcft("debug", str(site.recipe), "--dry-run")
    assert text.startswith("srun ") and "--pty bash --rcfile FOLDER/script.sh -i" in text and "--time=0:30:00" in text
    assert "export FROM_THE_CLUSTER=1" in text and not queue(site.lab)
