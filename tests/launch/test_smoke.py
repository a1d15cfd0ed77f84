"""The smoke test of a recipe: what it leaves as it is, what it makes small, and what it cannot look at."""

from __future__ import annotations

import json
from pathlib import Path

from hpcft.launch.condaenv import Env
from hpcft.launch.smoke import STEPS, reduced, unseen
from hpcft.recipe import Recipe
from tests.desk import Desk

BIG = {
    "name": "big",
    "task": "instruct",
    "env": "ft",
    "model": {"path": "owner/name", "revision": "v1", "freeze": 12},
    "data": {
        "train": "owner/rows",
        "template": "/prompt.md",
        "max_length": 700,
        "loss_on": "full",
        "columns": {"text": "body"},
        "split": {"validation": 0.1, "test": 0.1},
        "workers": 4,
    },
    "train": {
        "epochs": 3,
        "batch_size": 64,
        "micro_batch_size": "auto",
        "warmup_steps": 500,
        "precision": "fp16",
        "sharding": "full",
        "offload": True,
        "gradient_checkpointing": True,
        "keep_bytes": "60G",
        "clip_norm": None,
    },
    "evaluate": {"every": 200, "batch_size": 64},
    "resources": {"gpus": 4, "walltime": "2:00:00", "partition": "GPU", "account": "lab"},
    "notify": {"mail": "me@site.org"},
    "track": {"to": ("wandb",)},
}


def made(recipe: Recipe, folder: Path) -> Recipe:
    values = reduced(recipe, folder, ["train", "validation", "test"], Env(Path("/envs/ft")))
    return Recipe.model_validate_json(json.dumps(values))


def test_the_whole_way_stays_as_it_is_and_only_sizes_change() -> None:
    recipe, folder = Recipe.model_validate(BIG), Path("/smoke")
    small = made(recipe, folder)
    assert small.model_dump(exclude_unset=True) == {
        "name": "big",
        "task": "instruct",
        "cluster": "/smoke/here.yaml",
        "env": "/envs/ft",
        "model": {**small.model.model_dump(exclude_unset=True), "path": "/smoke/model", "freeze": 1},
        "data": {
            **small.data.model_dump(exclude_unset=True),
            "train": "/smoke/train.jsonl",
            "validation": "/smoke/validation.jsonl",
            "test": "/smoke/test.jsonl",
            "template": "/prompt.md",
            "max_length": 700,
            "loss_on": "full",
            "workers": 1,
        },
        "train": small.train.model_dump(exclude_unset=True),
        "evaluate": {**small.evaluate.model_dump(exclude_unset=True), "every": STEPS // 2, "batch_size": 8},
        "resources": {"gpus": 0, "processes": 2, "cpus_per_process": 1, "walltime": "0:10:00", "jobs": 10},
        "notify": small.notify.model_dump(exclude_unset=True),
        "track": small.track.model_dump(exclude_unset=True),
        "phases": (),
    }
    assert small.model.revision is None and small.data.split is None and small.data.columns == {}
    train = small.train
    assert (train.steps, train.epochs, train.batch_size, train.micro_batch_size) == (STEPS, None, 8, 2)
    assert (train.precision, train.offload, train.sharding, train.clip_norm) == ("fp32", False, "full", None)
    assert (train.warmup_steps, train.gradient_checkpointing, train.keep_bytes) == (2, True, None)


def test_each_phase_is_made_as_small_and_keeps_what_is_its_own() -> None:
    data = {**BIG["data"], "max_length": 64}  # type: ignore[dict-item]
    phases = [
        {"name": "full", "data": {"loss_on": "full", "train": "other/rows"}, "train": {"epochs": 2}},
        {"name": "completion", "train": {"steps": 20_000, "learning_rate": 1e-5, "batch_tokens": 9_000}},
    ]
    values = {**BIG, "data": data, "phases": phases, "train": {"batch_size": 4, "warmup_steps": 100}}
    small = made(Recipe.model_validate_json(json.dumps(values)), Path("/smoke"))
    first, second = small.each_phase()
    assert first.data.train == "/smoke/full-train.jsonl" and second.data.train == "/smoke/train.jsonl"
    assert (first.train.steps, first.train.batch_size, first.train.learning_rate) == (STEPS, 8, 5e-5)
    assert (second.train.steps, second.train.batch_tokens, second.train.learning_rate) == (STEPS, 256, 1e-5)
    assert first.data.loss_on == "full" and small.steps == 2 * STEPS


def test_what_this_machine_cannot_show_is_said() -> None:
    assert list(unseen(Recipe.model_validate(BIG))) == [
        "the model's own weights",
        "Slurm",
        "fp16, for fp32 was used",
        "train.offload",
        "4 processes, for 2 were used",
        "GPUs and their memory",
    ]


def test_faults_are_said_before_anything_is_started(desk: Desk) -> None:
    desk.change("steps: 10", "stesp: 10")
    desk.change("template: prompt.md", "template: promt.md")
    assert desk.faults("--smoke") == [
        'demo.yaml:10: unknown key "train.stesp". Did you mean "steps"?',
        "demo.yaml:8: promt.md cannot be read: no such file or directory. Name a Markdown file.",
    ]
    assert desk.faults("--smoke", "--wait") == ["--smoke: goes without --dry-run and --wait. Leave them out."]
