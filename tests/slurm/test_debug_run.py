"""`hpcft debug --run` on a terminal: first steps under a real srun, a debugger that answers, a run left as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

import hpcft
from hpcft.rundir import RunDir
from tests.slurm.lab import Lab
from tests.slurm.processes import eventually
from tests.slurm.runs import HPCFT, Site, is_training, make_site, processes_of

PDB = r"\(Pdb\) "
STEP = "    share, accelerator, recipe = training.share, training.accelerator, training.recipe\n"
EDIT = """\
    if step and step == recipe.train.seed:
        breakpoint()
    if step == recipe.train.warmup_steps - 2:
        raise ValueError(f"an edit fails at step {step}")
"""
"""What somebody has written into one_step of their checkout; seed and warm-up choose which of it comes to pass."""


class Terminal:
    """A terminal in which somebody has called `hpcft debug --run`."""

    def __init__(self, site: Site, *words: str, **variables: str) -> None:
        environment = site.environment(**variables)
        self.child = pexpect.spawn(
            str(HPCFT), ["debug", *words], env=environment, encoding="utf-8", timeout=60, dimensions=(50, 200)
        )

    def until(self, pattern: str) -> str:
        """What was on the terminal before this."""
        self.child.expect(pattern)
        return str(self.child.before).replace("\r", "")

    def ask(self, line: str) -> str:
        """What the debugger says to a line."""
        self.child.sendline(line)
        return self.until(PDB).removeprefix(line).strip()

    def end(self, line: str = "") -> tuple[str, int]:
        """The rest of the terminal, after a last line to the debugger, and the exit code."""
        if line:
            self.child.sendline(line)
        rest = self.until(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus is not None, f"killed by {self.child.signalstatus}"
        return rest, self.child.exitstatus


def contents(run: RunDir) -> dict[str, tuple[bytes, int]]:
    """Every file of a run: its bytes, and when it was written."""
    files = [path for path in run.path.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def site(slurm: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    values = {"evaluate": {"every": None}, "train": {"save_every": 20}}
    return make_site(tmp_path_factory.mktemp("debug"), slurm, values, debug_options={"partition": "debug"})


@pytest.fixture(scope="module")
def checkout(site: Site) -> str:
    """A checkout of hpcft that somebody works on."""
    folder = site.folder / "checkout"
    shutil.copytree(Path(hpcft.__file__).parent, folder / "hpcft", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "hpcft/train/step.py"
    text = file.read_text()
    assert text.count(STEP) == 1
    file.write_text(text.replace(STEP, STEP + EDIT))
    return str(folder)


@pytest.fixture(scope="module")
def run(site: Site) -> Iterator[RunDir]:
    """A run that trains."""
    run = site.submit("resources.processes=2")
    yield run
    site.hpcft("cancel", run.name)


def processes_with(word: bytes) -> list[str]:
    """Processes of this machine with this word on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path.parent.name] if word in path.read_bytes().split(b"\0") else []
    return found


def no_session_is_left(site: Site) -> bool:
    """Whether soon nothing but runs lies in the runs' folder."""
    return eventually(lambda: not list(site.runs.glob(".debug-*")), seconds=15)


def test_a_breakpoint_is_reached_and_continued_on_a_compute_node(site: Site, run: RunDir, checkout: str) -> None:
    options = ("--run", "--set", "train.seed=1", "--set", "resources.processes=2")
    terminal = Terminal(site, str(site.recipe), *options, PYTHONPATH=checkout)
    assert "step 1 of 100000: loss " in terminal.until(PDB)
    assert terminal.ask("p step") == "1"
    assert terminal.ask("p recipe.processes, training.control.ranks") == "(1, 1)"
    node = terminal.ask("import os; p = print(os.environ['SLURMD_NODENAME'], os.environ.get('SLURM_NTASKS'))")
    assert node in ("gpu1 None", "gpu2 None")
    facts = site.lab.run("squeue", "--noheader", "--name=hpcft-debug-tiny", "--format=%j %P %C %l")
    assert facts == "hpcft-debug-tiny debug 1 30:00"
    rest, code = terminal.end("c")
    assert "step 2 of 100000: loss " in rest and "step 3 of 100000: loss " in rest and "step 4" not in rest
    assert code == 0 and no_session_is_left(site)


def test_an_exception_and_ctrl_c_open_the_debugger_where_they_happened(site: Site, checkout: str) -> None:
    fails = Terminal(site, str(site.recipe), "--run", "--set", "train.warmup_steps=3", PYTHONPATH=checkout)
    endless = ("--run", "--steps", "90000")
    there, here = (Terminal(site, str(site.recipe), *endless, *more) for more in ((), ("--cluster", "local")))
    said = fails.until(PDB)
    assert "step 1 of 100000" in said and "ValueError: an edit fails at step 1" in said
    assert fails.ask("p step") == "1"
    assert fails.end("q")[1] == 1
    for terminal in (there, here):
        terminal.until("step 2 of")
        terminal.child.sendintr()
        assert "KeyboardInterrupt" in terminal.until(PDB)
        assert terminal.ask("p 40 + 2") == "42"
    assert here.end("q")[1] == 130
    with contextlib.suppress(pexpect.ExceptionPexpect):  # it says so if hpcft has not ended within 0.3 s
        there.child.close(force=False)
    named = ("squeue", "--noheader", "--name=hpcft-debug-tiny")
    assert eventually(lambda: not site.lab.run(*named) and not processes_with(b"hpcft.train.debug"), seconds=30)
    assert no_session_is_left(site)


def test_a_run_is_looked_into_from_its_last_checkpoint_and_stays_as_it_was(site: Site, run: RunDir) -> None:
    site.wait("a checkpoint", lambda: bool(run.saved_steps()) and is_training(run.job(1)))
    processes = processes_of(site.lab, run.job(1).slurm_id or "")
    for process in processes:
        os.kill(process, signal.SIGSTOP)  # it runs, and writes nothing: so we see all that others write
    before, newest = contents(run), run.saved_steps()[-1]
    rest, code = Terminal(site, run.name, "--run", "--steps", "2").end()
    after = contents(run)
    for process in processes:
        os.kill(process, signal.SIGCONT)
    assert f"hpcft: goes on at step {newest} of 100000, sample-exact processes 2 -> 1" in rest
    assert f"step {newest + 2} of 100000: loss " in rest and f"step {newest + 3} " not in rest and code == 0
    assert after == before and no_session_is_left(site)
    step = (run.job(1).heartbeat or {})["last_step"]
    site.wait("it to train on", lambda: (run.job(1).heartbeat or {})["last_step"] > step)


def test_a_dry_run_prints_command_script_and_recipe_and_opens_nothing(site: Site) -> None:
    before = sorted(site.runs.glob("*"))
    text = site.hpcft("debug", str(site.recipe), "--run", "--steps", "5", "--dry-run")
    assert text.startswith("srun ") and "--pty bash FOLDER/script.sh" in text
    assert "-m hpcft.train.debug FOLDER 5\n" in text and '"workers": 0' in text
    assert sorted(site.runs.glob("*")) == before
