"""Changes to a run that exists: what may change and what may not, said with the reason, and the record of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcft import __version__
from hpcft.disk import read_json, write_json
from hpcft.launch import changes, provenance, remove
from hpcft.launch.drift import drift
from hpcft.rundir import RunDir
from tests.desk import Desk


@pytest.fixture
def run(desk: Desk) -> RunDir:
    """A run of the desk's recipe on this machine, as `submit` leaves it; it had two jobs, and was paused."""
    desk.change("cluster: ./site.yaml", "cluster: ./here.yaml")
    desk.change("gpus: 1", "gpus: 0\n  walltime: 1:00:00")
    desk.write("model/tokenizer.json", "{}")
    desk.write("model/model.safetensors", b"weights")
    from hpcft.launch.plan import make_plan

    plan = make_plan(desk.folder / "demo.yaml", ("train.save_every=5",), None)
    run = RunDir(desk.folder / "runs" / "demo")
    for number in (1, 2):
        run.job(number).path.mkdir(parents=True)
        write_json(run.job(number).path / "submitted.json", {"slurm_id": f"local{number}", "walltime": 60, "time": 0})
        write_json(run.job(number).path / "ended.json", {"ending": "stopped", "time": 0, "wall_seconds": 1.0})
    write_json(run.job(1).path / "started.json", {"time": 0, "pid": 1, "host": "here", "saved_step": None})
    shutil.copy(desk.folder / "demo.yaml", run.path / "recipe.yaml")
    write_json(run.path / "recipe.json", plan.recipe.model_dump(mode="json"))
    given = {"cluster": plan.cluster.model_dump(mode="json"), "env": str(plan.env.prefix)}
    write_json(run.path / "submission.json", given)
    write_json(run.path / "provenance.json", provenance.describe(plan.file.path, plan.recipe, plan.file.overrides))
    write_json(run.path / "queued.json", {"time": 0})
    for path in (run.stop_file, run.path / "submit.lock"):
        path.touch()
    return run


def faults(desk: Desk, *sets: str) -> list[str]:
    """What `hpcft resume demo --set ...` is refused for; nothing changes on disk."""
    return desk.faults(*(word for text in sets for word in ("--set", text)), "--runs", "runs", verb="resume",
                       recipe="demo")  # fmt: skip


@pytest.mark.parametrize(
    "text, shown, why",
    [
        ("name=other", 'name = "other"', "the run's directory and its jobs are called so."),
        ("task=corpus", 'task = "corpus"', "its rows are tokenised once, for this one."),
        ("cluster=orfeo", 'cluster = "orfeo"', "its jobs are recorded in the queue of that cluster."),
        ("model.path=gpt2", 'model.path = "gpt2"', "its checkpoints are of this one."),
        ("data.max_length=9", "data.max_length = 9", "its rows are tokenised once, in the first job."),
        ("train.seed=7", "train.seed = 7", "rows would be skipped or seen twice."),
        ("train.steps=99", "train.steps = 99", "the learning rate of every step so far was reckoned from it."),
    ],
)
def test_what_would_break_the_run_is_refused_with_the_reason(
    desk: Desk, run: RunDir, text: str, shown: str, why: str
) -> None:
    key = text.partition("=")[0]
    assert [fault for fault in faults(desk, text) if "cannot change" in fault] == [
        f"--set {key}: {shown} cannot change in a run: {why} Submit a new run."
    ]


def test_all_faults_of_a_resume_are_said_at_once_each_with_its_set(desk: Desk, run: RunDir) -> None:
    assert faults(desk, "train.sede=1", "train.log_every=x") == [
        '--set train.log_every: train.log_every = "x" is no whole number.',
        '--set train.sede: unknown key "train.sede". Did you mean "seed"?',
    ]
    assert faults(desk, "train.save_every=x", "train=5", "nmae=y", "data.max_length=9", "resources.gpus=1") == [
        "--set train: train = 5 is no section. Write `key: value` lines below it, indented.",
        '--set nmae: unknown key "nmae". Did you mean "name"?',
        "--set data.max_length: data.max_length = 9 cannot change in a run: its rows are tokenised once, in the first "
        "job. Submit a new run.",
        "--set resources.gpus: resources.gpus = 1: this machine has none. Write 0 to train on its CPUs.",
    ]
    assert faults(desk, "train.seed=1", "resources.gpus=1", "train.micro_batch_size=3", "train.steps") == [
        "--set train.steps: names no value. Write section.key=value.",
        "--set train.seed: train.seed = 1 cannot change in a run: rows would be skipped or seen twice. "
        "Submit a new run.",
        "runs/demo/recipe.yaml:9: train.batch_size = 8 is no multiple of micro_batch_size x processes = 3. Write 6.",
        "--set resources.gpus: resources.gpus = 1: this machine has none. Write 0 to train on its CPUs.",
    ]


def test_a_change_is_checked_recorded_and_then_in_force(desk: Desk, run: RunDir) -> None:
    before = json.loads((run.path / "recipe.json").read_bytes())
    sets = ["train.micro_batch_size=2", "train.learning_rate=1e-5", "resources.walltime=0:30:00", "train.save_every=5"]
    _, change, wrong = changes.standing(run, sets)
    assert wrong == []
    changes.record(run, change, "resume")
    (entry,) = changes.changes(run)
    assert (entry["verb"], entry["after_job"], entry["set"]) == ("resume", 1, sets)
    changed = {"train.micro_batch_size": 2, "train.learning_rate": 1e-5, "resources.walltime": "0:30:00"}
    assert entry["after"] == changed, "what is as it was is no change"
    assert entry["before"] == {
        "train.micro_batch_size": 1,
        "train.learning_rate": 5e-5,
        "resources.walltime": "1:00:00",
    }
    assert change.words() == [
        "train.micro_batch_size: 1 -> 2; the same rows in the same order from here on, though not to the last bit",
        "train.learning_rate: 5e-05 -> 1e-05; from here on the run learns otherwise than its recipe said at first",
        'resources.walltime: "1:00:00" -> "0:30:00"',
    ]
    after = json.loads((run.path / "recipe.json").read_bytes())
    before["train"] |= {"micro_batch_size": 2, "learning_rate": 1e-5}
    before["resources"]["walltime"] = "0:30:00"
    assert after == before and run.recipe.train.micro_batch_size == 2


def test_a_change_that_a_kill_kept_from_being_made_was_never_one(desk: Desk, run: RunDir) -> None:
    old = (run.path / "recipe.json").read_bytes()
    _, first, _ = changes.standing(run, ["train.save_every=7"])
    changes.record(run, first, "resume")
    mid = (run.path / "recipe.json").read_bytes()
    _, second, _ = changes.standing(run, ["train.save_every=9"])
    changes.record(run, second, "resume")
    assert [entry["after"]["train.save_every"] for entry in changes.changes(run)] == [7, 9]
    (run.path / "recipe.json").write_bytes(mid)  # as a kill between the two files leaves it
    assert [entry["after"]["train.save_every"] for entry in changes.changes(run)] == [7]
    changes.record(run, second, "resume")
    assert [entry["after"]["train.save_every"] for entry in changes.changes(run)] == [7, 9]
    assert old != mid


def test_a_run_of_an_older_hpcft_keeps_a_recipe_that_it_can_read(desk: Desk, run: RunDir) -> None:
    raw = json.loads((run.path / "recipe.json").read_bytes())
    del raw["notify"]
    write_json(run.path / "recipe.json", raw)
    _, change, wrong = changes.standing(run, ["train.save_every=7"])
    assert wrong == [] and "notify" not in change.values
    assert faults(desk, "notify.webhook=https://x.org/y") == [
        '--set notify.webhook: notify.webhook = "https://x.org/y": the run\'s own hpcft, '
        f"{__version__}, has no such key. Submit a new run."
    ]


def test_whom_to_tell_may_change_and_is_checked(desk: Desk, run: RunDir) -> None:
    assert faults(desk, 'notify={mail: a b, webhook: x, command: "say \'x"}') == [
        '--set notify: notify.mail = "a b" is no mail address. Write one, as "name@site.org".',
        '--set notify: notify.command = "say \'x" is no command. Write a program and its arguments; close every quote.',
        '--set notify: notify.webhook = "x" is no web address. Write it whole, "https://...".',
    ]
    assert faults(desk, "notify.command=./tell.sh --loud", "notify.mail=ada@site.org") == [
        "--set notify.command: tell.sh is no program that can be run. Make it executable.",
        "--set notify.mail: notify.mail is sent by Slurm, and this machine has none. Use notify.command or "
        "notify.webhook.",
    ]


# --- what has changed outside the run ---


def drifted(run: RunDir) -> tuple[list[str], list[str]]:
    file, _, _ = changes.standing(run)
    wrong, notes = drift(run, file)
    base = f"{run.path.parents[1]}/"
    return [str(fault).replace(base, "") for fault in wrong], [note.replace(base, "") for note in notes]


def test_touched_and_copied_files_are_the_same_files(desk: Desk, run: RunDir) -> None:
    for name in ("train.jsonl", "model/config.json", "model/model.safetensors"):
        text = (desk.folder / name).read_bytes()
        (desk.folder / name).unlink()
        desk.write(name, text)
    desk.write("model/README.md", "new")
    assert drifted(run) == ([], [])


def test_changed_rows_matter_until_they_are_tokenised(desk: Desk, run: RunDir) -> None:
    desk.write("train.jsonl", '{"text": "other", "label": "glad"}\n')
    note = "train.jsonl has changed since the submission, and is tokenised as it is now: nothing was learnt yet."
    assert drifted(run) == ([], [note])
    (run.features / "train").mkdir(parents=True)
    write_json(run.features / "train/complete.json", {})
    (desk.folder / "train.jsonl").unlink()
    note = "train.jsonl has changed since the submission; the run keeps the rows that it tokenised then."
    assert drifted(run) == ([], [note])


def test_another_tokenizer_or_configuration_is_refused_once_the_run_has_begun(desk: Desk, run: RunDir) -> None:
    desk.write("model/config.json", '{"attn_pdrop": 0.5}')
    desk.write("model/model.safetensors", b"other weights")
    note = "model has changed since the submission (config.json, model.safetensors); the run begins with it as it is."
    assert drifted(run) == ([], [note])
    (run.checkpoints / "step-00000005").mkdir(parents=True)
    write_json(run.checkpoints / "step-00000005/manifest.json", {})
    wrong = (
        "runs/demo/recipe.yaml:5: model/config.json has changed since the run began with it. Put it back as it was, "
        "or submit a new run."
    )
    assert drifted(run) == ([wrong], [])
    assert faults(desk) == [wrong]


def test_held_out_rows_must_stay_between_the_two_measurements(desk: Desk, run: RunDir) -> None:
    test = desk.write("test.jsonl", '{"text": "a", "label": "b"}\n')
    record: dict[str, Any] = read_json(run.path / "provenance.json") or {}
    record["data"]["test"] = provenance.fingerprint(test)
    write_json(run.path / "provenance.json", record)
    raw = json.loads((run.path / "recipe.json").read_bytes())
    raw["data"]["test"], raw["evaluate"]["choices"] = str(test), ["b", "c"]
    write_json(run.path / "recipe.json", raw)
    test.write_text('{"text": "a", "label": "c"}\n')
    assert drifted(run) == ([], [])
    run.evaluation.mkdir()
    write_json(run.evaluation / "before.json", {})
    (wrong,), _ = drifted(run)
    assert wrong == (
        "runs/demo/recipe.yaml:6: test.jsonl has changed since accuracy before training was measured on it. Put it "
        "back, or give the comparison up: `hpcft resume demo --set evaluate.choices=null`."
    )
    _, change, refused = changes.standing(run, ["evaluate.choices=null"])
    assert refused == [] and change.after == {"evaluate.choices": None}


def test_a_large_file_is_told_by_its_size_and_its_two_ends(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(provenance.WHOLE + 1))
    first = provenance.fingerprint(path)
    assert first and first["hashed"] == "first and last MiB"
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert not provenance.same(first, provenance.fingerprint(path))
    assert provenance.fingerprint(tmp_path / "none") is None


# --- show ---


def test_show_prints_where_a_run_came_from(desk: Desk, run: RunDir) -> None:
    _, change, _ = changes.standing(run, ["train.learning_rate=1e-5", "notify.webhook=https://hooks.org/secret"])
    changes.record(run, change, "resume")
    desk.write("train.jsonl", "{}\n")
    said = desk.run("show", "demo", "--runs", "runs").out
    for piece in (
        "\noverrides    --set train.save_every=5\n",
        "\ngit          the recipe lay in no git checkout\n",
        f"hpcft        {__version__} (the run's own copy: {run.code})".replace(f"{desk.folder}/", ""),
        "data.train   train.jsonl, 38 B, ",
        "; changed since the submission",
        ", hpcft resume, after job 1, at step 0\n",
        "    train.learning_rate: 5e-05 -> 1e-05; from here on the run learns otherwise than ",
        "    learning_rate: 1.0e-05\n",
        "  1 (local1), ",
    ):
        assert piece in said, (piece, said)
    assert 'notify.webhook: null -> "https://hooks.org/…"\n' in said and "webhook: https://hooks.org/…\n" in said
    assert "secret" not in said
    facts = json.loads(desk.run("show", "demo", "--json", "--runs", "runs").out)
    assert facts["recipe"]["train"]["learning_rate"] == 1e-5 and facts["jobs"][0]["ending"] == "stopped"


def test_show_names_the_commit_of_a_model_from_the_hub(desk: Desk, run: RunDir) -> None:
    raw = json.loads((run.path / "recipe.json").read_bytes())
    raw["model"]["path"] = "openai-community/gpt2"
    write_json(run.path / "recipe.json", raw)
    write_json(run.path / "provenance.json", {**(read_json(run.path / "provenance.json") or {}), "model": None})
    asked = "model        openai-community/gpt2, revision main of the hub"
    assert f"{asked}; the first job finds its commit\n" in desk.run("show", "demo", "--runs", "runs").out
    write_json(run.path / "model.json", {"commit": "607a30d783dfa663caf39e06633721c8d4cfcd7e"})
    assert f"{asked}, at commit 607a30d" in desk.run("show", "demo", "--runs", "runs").out


# --- rm ---


def test_rm_asks_and_removes_the_run_and_nothing_that_a_link_in_it_leads_to(desk: Desk, run: RunDir) -> None:
    desk.write("elsewhere/precious", "x")
    (run.path / "checkpoints").symlink_to(desk.folder / "elsewhere")
    assert desk.run("rm", "demo", "--runs", "runs").err == (
        "hpcft: demo: is not removed where nobody can be asked. Say --yes.\n"
    )
    assert run.path.exists()
    (run.path.parent / f"{remove.HIDDEN}old").mkdir()  # of an rm that was killed
    said = desk.run("rm", "demo", "--yes", "--runs", "runs")
    assert said.code == 0 and said.out.startswith("removed runs/demo: 0 checkpoints, no final model, "), said
    assert list(run.path.parent.iterdir()) == [] and (desk.folder / "elsewhere/precious").exists()


def test_rm_refuses_a_link_a_run_that_is_in_use_and_one_that_is_half_submitted(desk: Desk, run: RunDir) -> None:
    def refusal() -> str:
        (line,) = desk.faults("--yes", "--runs", "runs", verb="rm", recipe="demo")
        return line

    lock = run.lock
    assert lock.take()
    assert refusal() == "demo: has a job that is still ending. Try again in a minute."
    lock.drop()
    (run.path / "queued.json").unlink()
    (run.job(1).path / "started.json").unlink()
    assert refusal() == "demo: is half submitted. `hpcft cancel demo` undoes it."
    moved = desk.folder / "moved"
    run.path.rename(moved)
    run.path.symlink_to(moved)
    assert refusal() == (
        "demo: is a link to moved, and links are not followed. Remove the link, and what it leads to, by hand."
    )


PHASES = """\
phases:
  - name: full
    train:
      steps: 4
  - name: completion
    train:
      steps: 6
      learning_rate: 1e-4
"""


def test_a_phase_changes_as_a_run_does_by_its_name(desk: Desk, run: RunDir) -> None:
    from hpcft.launch.plan import make_plan

    (desk.folder / "demo.yaml").write_text((desk.folder / "demo.yaml").read_text() + PHASES)
    plan = make_plan(desk.folder / "demo.yaml", (), None)
    shutil.copy(desk.folder / "demo.yaml", run.path / "recipe.yaml")
    write_json(run.path / "recipe.json", plan.recipe.model_dump(mode="json"))
    sets = ["phases.completion.train.learning_rate=1e-5", "phases.full.train.weight_decay=0.1"]
    _, change, wrong = changes.standing(run, sets)
    assert wrong == []
    learnt = "from here on the run learns otherwise than its recipe said at first"
    assert change.words() == [
        f"phases.full.train.weight_decay: 0.01 -> 0.1; {learnt}",
        f"phases.completion.train.learning_rate: 0.0001 -> 1e-05; {learnt}",
    ]
    changes.record(run, change, "resume")
    full, completion = run.recipe.each_phase()
    assert (full.train.weight_decay, full.train.learning_rate) == (0.1, 5e-5)
    assert (completion.train.weight_decay, completion.train.learning_rate) == (0.01, 1e-5)
    assert changes.changes(run)[-1]["after"]["phases.full.train.weight_decay"] == 0.1
    settled = "cannot change in a run: the learning rate of every step so far was reckoned from it. Submit a new run."
    assert faults(desk, "phases.full.train.steps=9") == [
        f"--set phases.full.train.steps: phases.full.train.steps = 9 {settled}"
    ]
    assert faults(desk, "phases=[]") == [
        "--set phases: phases cannot change in a run: the steps of all its phases are settled when it begins. "
        "Submit a new run."
    ]
