"""A matrix: the runs that one recipe means, what they are called, and every way to write it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcft.matrix import cells
from hpcft.recipefile import check_members, check_recipe
from tests.desk import Desk, make_desk

NAMES = "Name the runs: write the matrix as a list, with `name: ...` in each."
EXAMPLE = "Write `train.seed: [0, 1]` below it, or a list of `{train.seed: 0}`."


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


def labels(matrix: Any) -> list[str]:
    found, faults = cells(matrix, "demo", str)
    assert faults == []
    return [cell.label for cell in found]


def add(desk: Desk, matrix: str) -> None:
    desk.write("demo.yaml", (desk.folder / "demo.yaml").read_text() + f"matrix:\n{matrix}")


def test_a_grid_is_every_choice_of_each_key_named_by_its_values() -> None:
    grid = {"model.path": ["google-bert/bert-base-cased", "../models/tiny v2/"], "train.learning_rate": [5e-5, 1e-4]}
    assert labels(grid) == [
        "bert-base-cased-learning_rate-5e-5",
        "bert-base-cased-learning_rate-1e-4",
        "tiny-v2-learning_rate-5e-5",
        "tiny-v2-learning_rate-1e-4",
    ]
    found, _ = cells(grid, "demo", str)
    assert found[1].settings == {"model.path": "google-bert/bert-base-cased", "train.learning_rate": 1e-4}
    assert labels({"lora": [None], "train.deterministic": [True, False]}) == [
        "lora-null-deterministic-true",
        "lora-null-deterministic-false",
    ]


def test_a_key_of_names_sets_several_things_at_once() -> None:
    variants = {"random": {"model.weights": "random"}, "full": None}
    found, faults = cells({"train.seed": [1], "variant": variants}, "demo", str)
    assert faults == [] and [cell.label for cell in found] == ["seed-1-random", "seed-1-full"]
    assert found[0].settings == {"train.seed": 1, "model.weights": "random"}
    assert found[1].settings == {"train.seed": 1}


def test_a_list_is_a_run_each() -> None:
    assert labels([{"train.seed": 1, "model.freeze": "body"}, {"name": "as-it-is"}]) == ["seed-1-body", "as-it-is"]


@pytest.mark.parametrize(
    ("matrix", "messages"),
    [
        ("  3\n", [f"demo.yaml:13: matrix is neither a grid nor a list. {EXAMPLE}"]),
        ("  []\n", [f"demo.yaml:13: matrix is empty. {EXAMPLE}"]),
        ("  train.seed: 3\n", ["demo.yaml:14: matrix.train.seed = 3 is no list. Write `train.seed: [first, second]`."]),
        ("  train.seed: []\n", ["demo.yaml:14: matrix.train.seed is empty. Remove it."]),
        (
            "  train.seed: [1, 2, 1]\n",
            ['demo.yaml:14: "demo-seed-1" stands there twice. Remove one.'],
        ),
        (
            "  train.learning_rate: [1e-4, 1.00000001e-4]\n",
            [f'demo.yaml:14: two runs would be called "demo-learning_rate-1e-4". {NAMES}'],
        ),
        (
            "  train: {seed: [1, 2]}\n",
            ["demo.yaml:14: matrix.train.seed = [1, 2] is no section. Write `train.seed: [1, 2]`."],
        ),
        (
            "  trian.seed: [1, 2]\n",
            ['demo.yaml:14: unknown key "trian". Did you mean "train"?'],
        ),
        (
            "  lora: [{rank: 8}]\n",
            ["demo.yaml:14: matrix.lora.0 makes no name. Name the choices: `some: {first: {lora: ...}}`."],
        ),
        ("  - 3\n  - {}\n", [
            "demo.yaml:14: matrix.0 is no setting. Write `- {train.seed: 0}`.",
            "demo.yaml:15: matrix.1 has no name, and nothing that would tell its run apart. Add `name: ...` to it.",
        ]),
        (
            "  name: [a, b]\n",
            ['demo.yaml:14: "name" cannot differ between the runs of a matrix. Runs are named by their settings.'],
        ),
        (
            "  size: {small: 3}\n",
            ["demo.yaml:14: matrix.size.small = 3 is no section. Write `small: {train.seed: 0}`."],
        ),
        ("  train.seed: [1, 2]\n  size: {small: {train: {}}}\n", [
            "demo.yaml:13: two of its keys set train.seed. Let one of them do it."
        ]),
        (f"  model.path: [{'x' * 60}]\n", [
            f'demo.yaml:14: "demo-{"x" * 60}" is no name for a run: it has 65 characters, and 61 are the most. {NAMES}'
        ]),
        ("  train.seed: [1]\n  data.max_length: [" + ", ".join(map(str, range(2, 203))) + "]\n", [
            "demo.yaml:13: it means 201 runs, and 200 are the most. Split it."
        ]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_matrix_is_said_with_its_line(desk: Desk, matrix: str, messages: list[str]) -> None:
    add(desk, matrix)
    assert desk.faults() == messages


def test_the_faults_of_all_runs_are_said_at_once_each_at_the_value_that_has_it(desk: Desk) -> None:
    desk.change("task: instruct", "task: instruct\nevaluate:\n  every: 5")
    add(desk, "  train.learning_rate: [1e-4, -1]\n  train.warmup_steps: [8, many]\n  train.sede: [3]\n")
    every = "evaluate.every = 5 needs data.validation. Name a file there, or remove it."
    assert desk.faults() == [
        'demo.yaml:18: unknown key "train.sede". Did you mean "seed"?',
        f"demo.yaml:4: {every}",
        'demo.yaml:17 (learning_rate-1e-4-many-sede-3, learning_rate--1-many-sede-3): train.warmup_steps = "many" is '
        "no whole number.",
        "demo.yaml:16 (learning_rate--1-warmup_steps-8-sede-3, learning_rate--1-many-sede-3): train.learning_rate = -1 "
        "is too small. It must be greater than 0.",
    ]


def test_what_the_matrix_decides_is_not_overridden(desk: Desk) -> None:
    add(desk, "  train.seed: [1, 2]\n")
    fix = "Write `--set matrix.train.seed=[...]`, or choose one run with `--set matrix=NAME`."
    assert desk.faults("--set", "train.seed=3") == [
        f"--set train.seed: the matrix gives each run a train.seed of its own. {fix}"
    ]


def test_a_key_of_the_grid_can_be_given_on_the_command_line(desk: Desk) -> None:
    members = check_members(Path("demo.yaml"), ["matrix.train.seed=[1, 2]"])
    assert [member.file.recipe.train.seed for member in members if member.file] == [1, 2]
    assert [member.file.recipe.name for member in members if member.file] == ["demo-seed-1", "demo-seed-2"]
    assert desk.faults("--set", "matrix.train.seed=[-1, 0]") == [
        "--set matrix.train.seed (seed--1): train.seed = -1 is too small. It must be 0 at least."
    ]


def test_one_run_of_a_matrix_is_chosen_by_its_name_wherever_a_recipe_is_for_one(desk: Desk) -> None:
    add(desk, "  train.seed: [1, 2]\n")
    file, faults = check_recipe(Path("demo.yaml"), ["matrix=demo-seed-2"])
    assert faults == [] and file is not None and file.recipe.train.seed == 2 and file.recipe.name == "demo-seed-2"
    assert "demo-seed-1" in desk.accepts("--set", "matrix=seed-1")
    assert desk.faults("--set", "matrix=seed-3") == [
        '--set matrix: none of its runs is called "seed-3". Did you mean "seed-2"?'
    ]
    assert desk.faults("--dry-run", verb="debug") == [
        "demo.yaml:13: its matrix means 2 runs, and this is for one. Choose one with --set matrix=NAME: seed-1, seed-2."
    ]
