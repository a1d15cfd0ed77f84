"""What keeps a model from being asked, said before anything is loaded."""

from __future__ import annotations

import json

import pytest

from tests.desk import Desk
from tests.test_cli import make_run

GONE = "demo: its env has no python any more: /e/bin/python. Make it again there."
NOT_YET = "demo: is not finished. Add --checkpoint with one of the steps 8."


@pytest.fixture
def asked(desk: Desk) -> Desk:
    """A run that goes on, with a checkpoint of step 8."""
    make_run(desk, "demo")
    desk.write("runs/demo/checkpoints/step-00000008/manifest.json", "{}")
    return desk


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["--split", "dev"],
            ['--split: "dev" is not known. Use test, validation, train.', NOT_YET, GONE],
        ),
        (
            ["--checkpoint", "9"],
            [
                "--split: the recipe of demo has no data.test. It has train.",
                "--checkpoint: demo has no checkpoint of step 9. It has 8.",
                GONE,
            ],
        ),
        (["--split", "train", "--checkpoint", "0"], [GONE]),
        (
            ["--split", "train", "--checkpoint", "best", "--on-cluster"],
            ["--best: demo has no best/. train.keep_best makes one at each better evaluation."],
        ),
        (
            ["--checkpoint", "last"],
            ['--checkpoint: "last" is neither a step nor `best`. Leave it out for the final model.'],
        ),
        (
            ["--walltime", "1:00:00"],
            ["--walltime: goes with --on-cluster. Add it, or leave the walltime out."],
        ),
    ],
)
def test_an_evaluation_that_cannot_be(asked: Desk, words: list[str], messages: list[str]) -> None:
    assert asked.faults(*words, "--runs", "runs", verb="evaluate", recipe="demo") == messages


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["--prompt", "Hi", "--input", "rows.xml", "--output", "demo.yaml", "--top-p", "1.5"],
            [
                "--prompt: --input is given too. Leave out one of the two.",
                "--input: rows.xml is of no format known here. Use .jsonl, .json, .csv, .parquet, .txt.",
                "--output: demo.yaml has another ending than .jsonl. Name a new .jsonl file.",
                "--top-p: 1.5 is no share. Write more than 0, at most 1.",
                NOT_YET,
                GONE,
            ],
        ),
        (
            ["--output", "train.jsonl", "--checkpoint", "8"],
            [
                "--output: goes with --input. Name a file of rows or prompts there.",
                "--output: train.jsonl exists. Name a new .jsonl file.",
                GONE,
            ],
        ),
        (
            ["--input", "none.jsonl", "--checkpoint", "8"],
            ["--input: none.jsonl cannot be read. Name a file of rows or prompts.", GONE],
        ),
    ],
)
def test_a_writing_that_cannot_be(asked: Desk, words: list[str], messages: list[str]) -> None:
    assert asked.faults(*words, "--runs", "runs", verb="generate", recipe="demo") == messages


def test_a_prompt_that_does_not_fill_the_template(asked: Desk) -> None:
    run = asked.folder / "runs" / "demo"
    template = asked.write("pair.md", "{{instruction}}\n{{context}}\n{{output}}")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe |= {"task": "instruct", "data": {"train": "/t.jsonl", "template": str(template)}}
    (run / "recipe.json").write_text(json.dumps(recipe))
    words = ("--prompt", "Hi", "--checkpoint", "8", "--runs", "runs")
    assert asked.faults(*words, verb="generate", recipe="demo") == [
        '--prompt: the template pair.md takes "instruction", "context", not one text. '
        "Give rows with --input, or add --raw for a prompt as it is.",
        GONE,
    ]
    assert asked.faults(*words, "--raw", verb="generate", recipe="demo") == [GONE]


def test_a_model_with_classes_writes_nothing(asked: Desk) -> None:
    path = asked.folder / "runs" / "demo" / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "classify"}))
    assert asked.faults("--prompt", "Hi", "--runs", "runs", verb="generate", recipe="demo") == [
        "demo: the task classify gives classes, and no text. `hpcft evaluate demo` asks it about rows."
    ]


def test_a_folder_has_one_model(asked: Desk) -> None:
    (asked.folder / "plain").mkdir()
    asked.write("plain/config.json", "{}")
    assert asked.faults("--checkpoint", "8", verb="generate", recipe="plain") == [
        "--checkpoint: plain is a folder, which has one model. Leave it out."
    ]
