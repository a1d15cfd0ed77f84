"""The command: its verbs, its help, and what it says where there is nothing to do."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hpcft import __version__, cli
from hpcft.cli.app import VERBS, runs_folder
from hpcft.disk import write_json
from hpcft.errors import UserError
from hpcft.launch.jobstatus import JobStatus
from hpcft.launch.show import print_jobs, print_runs
from hpcft.launch.status import RunStatus
from hpcft.rundir import RunDir
from tests.curves.chains import add_points
from tests.desk import Desk, make_desk

HELP = """\
Usage: hpcft [OPTIONS] COMMAND [ARGS]...

  Fine-tune language models over chains of Slurm jobs that end as one uncut
  run would.

Options:
  --version             Print hpcft's version.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell, to copy it or
                        customize the installation.
  --help                Show this message and exit.

Commands:
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


def make_run(desk: Desk, name: str) -> RunDir:
    """A run as `submit` leaves it, by hand: two jobs waiting."""
    run = RunDir(desk.folder / "runs" / name)
    run.job(1).path.mkdir(parents=True)
    recipe = {"name": name, "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "/t.jsonl"}}
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 10}})
    write_json(run.path / "submission.json", {"cluster": {"name": "here", "kind": "local", "runs": "x"}, "env": "/e"})
    write_json(run.path / "queued.json", {"time": 0})
    write_json(run.job(1).path / "submitted.json", {"slurm_id": "local1", "walltime": 60, "time": 0})
    return run


# --- help ---


def test_the_help_lists_every_verb_with_one_whole_line(desk: Desk) -> None:
    said = desk.run("--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(HELP)
    lines = said.out.removeprefix(HELP).splitlines()
    assert [line.split()[0] for line in lines] == list(VERBS)
    assert set(VERBS) == set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    for line in lines:
        assert line.endswith("."), line
        assert not line.endswith("..."), line
        assert len(line) <= 80, line


def test_the_version_is_said(desk: Desk) -> None:
    assert desk.run("--version").out == f"hpcft {__version__}\n"


def test_no_verb_at_all_is_answered_with_the_help(desk: Desk) -> None:
    said = desk.run()
    assert (said.code, said.out, said.err) == (2, "", desk.run("--help").out)


def test_every_verb_explains_its_arguments_and_options(desk: Desk) -> None:
    for verb in get_command(cli.app).commands:  # type: ignore[attr-defined]
        said = desk.run(verb, "--help")
        assert said.code == 0
        rows = [line for line in said.out.splitlines() if line.startswith("  -") or line.startswith("  [")]
        assert rows
        for row in rows:
            assert len(row.split("  ")) >= 2, row


def test_the_help_takes_a_quarter_of_a_second_at_most() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "hpcft.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.25  # of a core, since others may be at work on this machine


# --- faults ---


def test_a_fault_is_a_line_on_stderr_and_exit_code_2_also_for_the_installed_command(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: demo\nnme: x\ntask: corpus\nmodel: {path: gpt2}\ndata: {train: t.jsonl}\n"
    )
    command = [str(Path(sys.executable).parent / "hpcft"), "submit", "bad.yaml", "--cluster", "local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == 'hpcft: bad.yaml:2: unknown key "nme". Did you mean "name"?'
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("place", ["train.jsonl/runs", "/proc/runs"])
def test_a_runs_folder_that_cannot_be_written_is_refused_before_anything_is_queued(desk: Desk, place: str) -> None:
    desk.program("sbatch", f"echo $@ >> {desk.folder}/calls")
    reason = "not a directory" if place.startswith("train") else "no such file or directory"
    fix = "Name another folder with --runs or HPCFT_RUNS."
    assert desk.faults("--runs", place) == [f"{place}: no run directory can be made here: {reason}. {fix}"]
    desk.patch.setenv("HPCFT_RUNS", place)
    assert desk.faults() == [f"{place}: no run directory can be made here: {reason}. {fix}"]


def test_the_folder_of_runs_is_the_one_given_else_the_variables_else_the_clusters(desk: Desk) -> None:
    def folder(*arguments: str) -> str:
        line = next(line for line in desk.accepts(*arguments).splitlines() if line.startswith("# run "))
        return line.split()[2].removesuffix(",")

    assert folder() == "runs/demo"
    desk.patch.setenv("HPCFT_RUNS", "from-variable")
    assert folder() == "from-variable/demo"
    assert folder("--runs", "given") == "given/demo"
    assert folder("--runs", "~/given") == "home/given/demo"


@pytest.mark.parametrize(
    "arguments",
    [("resume", "x"), ("extend", "x", "5"), ("stop", "x"), ("cancel", "x"), ("rm", "x"), ("logs", "x"), ("show", "x"),
     ("status", "x"), ("plot", "x", "-o", "x.png"),
     ("tensorboard", "x")],
)  # fmt: skip
def test_every_verb_refuses_a_run_that_is_not_there_and_a_prefix_of_two(desk: Desk, arguments: tuple[str, ...]) -> None:
    before = desk.tree()
    said = desk.run(*arguments, "--runs", "runs")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"hpcft: x: no run of this name in {desk.folder}/runs. There: none.\n".replace(
        f"{desk.folder}/", ""
    )
    assert desk.tree() == before
    for name in ("x-1", "x-2"):
        make_run(desk, name)
    before = desk.tree()
    said = desk.run(*arguments, "--runs", "runs")
    assert (said.code, said.out) == (2, "")
    assert said.err == "hpcft: x: fits 2 runs: x-1, x-2. Write more of the name.\n"
    assert desk.tree() == before


def test_a_picture_that_cannot_be_drawn_says_why(desk: Desk) -> None:
    make_run(desk, "demo")
    said = desk.run("plot", "demo", "-o", "x.png", "--runs", "runs")
    assert (said.code, said.err) == (
        2,
        "hpcft: demo: no picture: There is nothing to draw yet: no job has logged a loss.\n",
    )


def test_pictures_of_other_tags_and_axes_say_what_there_is(desk: Desk) -> None:
    run = make_run(desk, "demo")
    write_json(run.job(1).path / "resumed.json", {"step": 0, "total_steps": 10})
    add_points(run.job(1).curve, "train/loss", [1, 2], 1)
    for more, fault in (
        (("--x", "hour"), '--x: "hour" is no axis. Did you mean "hours"?'),
        (("--tag", "train/los"), 'demo: no picture: nothing is logged as "train/los". Did you mean "train/loss"?'),
    ):
        said = desk.run("plot", "demo", "-o", "x.html", "--runs", "runs", *more)
        assert (said.code, said.out, said.err) == (2, "", f"hpcft: {fault}\n")
    said = desk.run("plot", "demo", "demo", "-o", "x.html", "--x", "time", "--tag", "train/loss", "--runs", "runs")
    assert (said.code, said.out) == (0, "x.html\n") and '"axis":"time"' in (desk.folder / "x.html").read_text()


def test_the_status_of_a_named_run_has_its_curve_in_a_line(desk: Desk) -> None:
    run = make_run(desk, "demo")
    write_json(run.job(1).path / "resumed.json", {"step": 0, "total_steps": 10})
    add_points(run.job(1).curve, "train/loss", [*range(1, 9)], 1)
    assert "\n  curve      ▁▂▃▄▅▆▇█  1 to 1.001\n" in desk.run("status", "demo", "--runs", "runs").out
    assert "curve" not in desk.run("status", "--runs", "runs").out


def test_a_picture_makes_its_folder_and_names_another_place_where_it_cannot(desk: Desk) -> None:
    run = make_run(desk, "demo")
    write_json(run.job(1).path / "resumed.json", {"step": 0, "total_steps": 10})
    add_points(run.job(1).curve, "train/loss", [1, 2], 1)
    said = desk.run("plot", "demo", "-o", "new/deep/x.svg", "--runs", "runs")
    assert (said.code, said.out, said.err) == (0, "new/deep/x.svg\n", "")
    assert (desk.folder / "new/deep/x.svg").stat().st_size
    said = desk.run("plot", "demo", "-o", "train.jsonl/x.svg", "--runs", "runs")
    reason = "train.jsonl/x.svg cannot be written: not a directory."
    assert (said.code, said.out, said.err) == (2, "", f"hpcft: -o: {reason} Name another place.\n")


def test_tensorboard_without_a_run_says_where_it_looked(desk: Desk) -> None:
    said = desk.run("tensorboard", "--runs", "none")
    assert (said.code, said.out) == (2, "")
    assert said.err == "hpcft: none: holds no run. Name another folder with --runs or HPCFT_RUNS.\n"


def test_debug_refuses_what_is_no_walltime(desk: Desk) -> None:
    assert desk.faults("--walltime", "2h", verb="debug") == [
        '--walltime: "2h" is no walltime. Write hours:minutes:seconds, as 0:30:00.'
    ]


def test_debug_takes_a_file_for_a_recipe_and_any_other_word_for_a_run(desk: Desk) -> None:
    make_run(desk, "demo")
    assert desk.faults(verb="debug", recipe="jobs/demo") == ["jobs/demo: cannot be read: no such file or directory."]
    assert desk.faults(verb="debug", recipe="demos.yaml") == [
        "demos.yaml: cannot be read: no such file or directory. There: demo.yaml, here.yaml, site.yaml."
    ]
    (fault,) = desk.faults("--runs", "runs", verb="debug", recipe="demos")
    assert fault == "demos: no run of this name in runs. There: demo."
    desk.change("name: demo", "name: two words")
    desk.write("recipe", (desk.folder / "demo.yaml").read_bytes())
    assert desk.faults(verb="debug", recipe="recipe")[0].startswith("recipe:1: name =")


def test_debug_names_every_option_that_does_not_fit_and_what_a_run_lacks(desk: Desk) -> None:
    make_run(desk, "demo")
    options = ("--steps", "2", "--set", "train.seed=1", "--cluster", "local")
    assert desk.faults(*options, verb="debug", recipe="demo") == [
        "--steps: goes with --run. Add it.",
        "--set: goes with a recipe; a run is looked into as it is. Leave it out.",
        "--cluster: goes with a recipe; a run is looked into as it is. Leave it out.",
    ]
    assert desk.faults("--run", "--runs", "runs", verb="debug", recipe="demo") == [
        "demo: its env /e has no bin/python that can be run. Make it again there, or debug its recipe.",
        "demo: was submitted by an hpcft that had no `debug --run`. Leave out --run, or debug its recipe.",
    ]


# --- status ---


def test_status_without_runs_says_where_it_looked_and_is_no_error(desk: Desk) -> None:
    said = desk.run("status", "--runs", "none")
    assert (said.code, said.err) == (0, "")
    assert said.out == "no run in none; --runs or HPCFT_RUNS names another folder\n"
    assert json.loads(desk.run("status", "--json", "--runs", "none").out) == {"runs": []}


def test_before_the_first_run_the_sites_folder_is_named_and_not_one_beside_the_user(desk: Desk) -> None:
    def looked_in() -> str:
        return desk.run("status").out.removeprefix("no run in ").partition(";")[0]

    def file(name: str, more: str = "") -> None:
        text = f"kind: slurm\nruns: {desk.folder}/{name}\n{more}"
        desk.write(f"home/.config/hpcft/clusters/{name}.yaml", text)

    assert looked_in() == "runs"
    file("scratch")
    assert looked_in() == "scratch"
    file("other")
    assert looked_in() == "runs", "either may be meant"
    desk.patch.setattr("socket.gethostname", lambda: "login1")
    file("work", "hosts: ['login*']\n")
    assert looked_in() == "work"


def test_a_name_given_twice_is_shown_once(desk: Desk) -> None:
    make_run(desk, "demo")
    assert [
        run["name"] for run in json.loads(desk.run("status", "demo", "demo", "--json", "--runs", "runs").out)["runs"]
    ] == ["demo"]


def job(number: int, **facts: object) -> JobStatus:
    nothing: dict[str, object] = dict.fromkeys(JobStatus.__dataclass_fields__)
    return JobStatus(**{**nothing, "attempt": 1, "state_from": "squeue", "gpu_hours": 0.0,
                        "reason": "", "kept_steps": 0, "seconds": {}, "useful_seconds": 0.0,
                        "number": number, **facts})  # type: ignore[arg-type]  # fmt: skip


def run_status(*jobs: JobStatus, **facts: object) -> RunStatus:
    nothing: dict[str, object] = dict.fromkeys(RunStatus.__dataclass_fields__)
    given = {"name": "demo", "dir": "/r/demo", "cluster": "here", "state": "running", "note": "", "step": 7,
             "queue": "job 2 runs", "says": "trains", "gpu_hours_used": 0.0, "queue_waits": []}  # fmt: skip
    return RunStatus(**{**nothing, **given, "jobs": list(jobs), **facts})  # type: ignore[arg-type]


def cells(text: str) -> list[list[str]]:
    """The rows of a printed table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


JOBS = (
    job(1, ending="walltime", wall_seconds=60.0, useful_seconds=50.5, kept_steps=5, first_step=1, last_step=5,
        resume_step=0, loss=2.5, slurm_id="11", node="gpu001"),
    job(2, ending="killed", wall_seconds=9.0, resume_step=5, slurm_id="12", why="no space\n" + "x" * 999),
    job(2, attempt=2, state="RUNNING", resume_step=5, slurm_id="12"),
    job(3, state="PENDING", slurm_id="13"),
    job(4, ending="cancelled", slurm_id="14"),
)  # fmt: skip


def test_jobs_are_listed_but_for_those_cancelled_before_they_began(capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs(run_status(*JOBS))
    assert cells(capsys.readouterr().out) == [
        ["1", "11", "walltime", "1-5 (5)", "2.5000", "50.5", "9.5", "gpu001"],
        ["2", "12", "killed", "-", "-", "0.0", "9.0", "-"],
        ["2.2", "12", "running", "-", "-", "0.0", "-", "-"],
        ["3", "13", "pending", "-", "-", "0.0", "-", "-"],
    ]


def test_a_long_note_is_one_line_of_bounded_length_that_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs(run_status(*JOBS))
    (why,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("job 2")]
    assert why == f"job 2 killed: no space {'x' * 290}…"
    note = "`hpcft resume " + "a-very-long-name-" * 8 + "` goes on."
    print_runs([run_status(note=note, state="stopped")])
    assert capsys.readouterr().out.splitlines()[-1] == f"demo: {note}"


def test_a_name_is_never_cut_where_a_script_reads(capsys: pytest.CaptureFixture[str]) -> None:
    name = "twitter-sentiment-gpt2-medium-lr5e-5-seed3-0123456789-abcdefg"
    print_runs([run_status(name=name, total_steps=100000, state="broken off", queue="nothing", says="job 3 killed")])
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == name


def test_runs_in_several_folders_must_be_told_apart(desk: Desk) -> None:
    for place in ("one", "two"):
        desk.write(f"home/.config/hpcft/clusters/{place}.yaml", f"kind: local\nruns: {desk.folder}/{place}\n")
        (desk.folder / place / "demo").mkdir(parents=True)
        write_json(desk.folder / place / "demo/recipe.json", {})
    with pytest.raises(UserError) as refusal:
        runs_folder(None)
    folders = f"{desk.folder}/one, {desk.folder}/two"
    assert str(refusal.value) == f"--runs: runs lie in several folders: {folders}. Name one, or set HPCFT_RUNS."


def test_show_says_what_became_of_the_rows(desk: Desk) -> None:
    run = make_run(desk, "drawn")
    recipe = {"name": "drawn", "task": "corpus", "model": {"path": "gpt2"}, "data": {"train": "owner/rows:all"}}
    write_json(run.path / "recipe.json", {**recipe, "train": {"steps": 10}})
    removed = {"max_tokens": 3, "empty": 0}
    report = {"source": "owner/rows:all", "of": 90, "removed": removed, "rows": 87, "fingerprint": "ab" * 32}
    write_json(run.path / "rows.json", {"train": report})
    said = desk.run("show", "drawn", "--runs", str(desk.folder / "runs"))
    assert (said.code, said.err) == (0, "")
    assert "data.train   owner/rows, revision main of the hub\n" in said.out
    words = "87 of 90 rows of rows:all, 0 removed by empty, 3 removed by max_tokens; chosen as abababababababab"
    assert f"train rows   {words}\n" in said.out
