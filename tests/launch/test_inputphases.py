"""Phases in a recipe: merged as written, addressed by name, and refused with their line where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.launch.plan import make_plan
from hpcft.recipe import Recipe
from hpcft.recipefile import read_recipe
from tests.desk import Desk

PHASES = """\
phases:
  - name: full
    data:
      loss_on: full
    train:
      steps: 6
  - name: completion
    train:
      epochs: 2
      batch_tokens: 2048
      clip_norm: null
"""


@pytest.fixture
def phased(desk: Desk) -> Desk:
    """The desk's recipe with two phases."""
    desk.change("resources:", f"{PHASES}resources:")
    return desk


def test_a_phase_has_its_own_values_and_else_those_of_the_recipe_whatever_wrote_it_down(phased: Desk) -> None:
    recipe = read_recipe(phased.folder / "demo.yaml", ("train.weight_decay=0.5",)).recipe
    again = Recipe.model_validate_json(recipe.model_dump_json())
    for one in (recipe, again):
        full, completion = one.each_phase()
        assert (full.data.loss_on, full.train.steps, full.train.batch_size) == ("full", 6, 8)
        assert (completion.data.loss_on, completion.train.steps, completion.train.epochs) == ("completion", None, 2)
        assert (completion.train.batch_size, completion.train.batch_tokens) == (None, 2048)
        assert (full.train.clip_norm, completion.train.clip_norm) == (1.0, None)
        assert [each.train.weight_decay for each in (full, completion)] == [0.5, 0.5]
        assert full.data.template == recipe.data.template and full.phases == ()
        assert one.steps is None and one.phase_key(0, "train.steps") == "phases.full.train.steps"
        assert [one.features_folder(number) for number in (0, 1)] == ["full", "completion"]
    assert read_recipe(phased.folder / "demo.yaml", ("phases.completion.train={steps: 4}",)).recipe.steps == 10


def test_a_phase_is_set_by_its_name(phased: Desk) -> None:
    sets = ("phases.full.train.learning_rate=1e-3", "phases.completion.data.max_length=64")
    full, completion = read_recipe(phased.folder / "demo.yaml", sets).recipe.each_phase()
    assert (full.train.learning_rate, completion.train.learning_rate) == (1e-3, 5e-5)
    assert (full.data.max_length, completion.data.max_length) == (512, 64)


SHARED = "all phases have the same. Write it in the section"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: completion", "name: full", '17: two phases are called "full". Give each a name of its own.'),
        (
            "name: full",
            "name: after",
            '12: no phase can be called "after": evaluation/ has other files of this name. Give it another name.',
        ),
        (
            "name: full",
            "name: test-best",
            '12: no phase can be called "test-best": evaluation/ has other files of this name. Give it another name.',
        ),
        (
            "name: full",
            "name: 1st",
            '12: phases.1st.name = "1st" is no name of a phase. Write letters, digits, dashes and underscores, 41 at '
            "most, a letter first.",
        ),
        (
            "  - name: full\n    data",
            "  - data",
            '12: "phases.0.name" is missing. Add `name: ...` to the section "phases.0".',
        ),
        ("  - name: full", "  - 5\n  - name: full",
         "12: phases.0 = 5 is no section. Write `key: value` lines below it, indented."),
        ("steps: 6", "stesp: 6", '16: unknown key "phases.full.train.stesp". Did you mean "steps"?'),
        ("loss_on: full", "loss_on: all", '14: phases.full.data.loss_on = "all" is not known. Known here: completion, '
         "full."),
        ("epochs: 2", "micro_batch_size: many",
         '19: phases.completion.train.micro_batch_size = "many" is not known. '
         'Write a whole number from 1 on or "auto".'),
        ("clip_norm: null", "precision: fp16",
         f'21: phases.completion.train.precision: {SHARED} "train", or remove it.'),
        ("loss_on: full", "workers: 5", f'14: phases.full.data.workers: {SHARED} "data", or remove it.'),
        ("epochs: 2", "steps: 20\n      warmup_steps: 20",
         "20: phase completion: train.warmup_steps = 20 leaves none of the 20 steps to fall. Write 19 at most."),
        ("loss_on: full", "train: other.jsonl",
         "14: phase full: other.jsonl cannot be read: no such file or directory. Name a file of rows."),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_phase_is_named_with_its_line(phased: Desk, old: str, new: str, message: str) -> None:
    phased.change(old, new)
    assert phased.faults() == [f"demo.yaml:{message}"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("phases.last.train.steps=5", '"last" is no phase of the recipe. It has full, completion.'),
        ("phases.full=5", '"full" is a phase, and no key. Write phases.full.section.key=value.'),
        ("phases.full.train.steps=0", "phases.full.train.steps = 0 is too small. It must be 1 at least."),
        (
            "phases.full.train.warmup_steps=6",
            "phase full: train.warmup_steps = 6 leaves none of the 6 steps to fall. Write 5 at most.",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_set_of_a_phase_points_at_the_set(phased: Desk, given: str, message: str) -> None:
    assert phased.faults("--set", given) == [f"--set {given.partition('=')[0]}: {message}"]


def test_what_is_wrong_in_all_phases_is_said_once(phased: Desk) -> None:
    phased.change("path: model", "path: ./modell")
    phased.change("gpus: 1", "gpus: 1\n  processes: 2")
    assert len(phased.faults()) == 2


def test_phases_that_read_other_columns_of_drawn_rows_are_refused(phased: Desk) -> None:
    rows = "".join(f'{{"text": "t{n}", "more": "m{n}", "label": "glad"}}\n' for n in range(9))
    phased.write("train.jsonl", rows)
    phased.change("loss_on: full", "template: other.md")
    phased.write("other.md", "Text: {{text}}\nLabel: {{label}}")
    phased.accepts("--set", "data.split.test=2")
    phased.write("other.md", "Text: {{text}} {{more}}\nLabel: {{label}}")
    phased.accepts()
    [fault] = phased.faults("--set", "data.split.test=2")
    assert fault.endswith(
        ': phases.completion reads "label", "text", and a phase before it "label", "more", "text": data.split draws by '
        "what is read, and would hold out other rows for each. "
        "Let all phases read the same columns, or name files in data.validation and data.test."
    )


def test_a_dry_run_shows_each_phase(phased: Desk) -> None:
    text = phased.accepts("--set", "phases.completion.train={steps: 4}")
    assert "# length       10 steps in 2 phases\n" in text
    assert "# phase        full: 6 steps, 8 rows a step (micro_batch_size 1 x 1 process x 8 micro-batches)\n" in text
    assert "# phase        completion: 4 steps, 8 rows a step" in text
    assert (
        "# phase        completion: 2 epochs, about 2048 tokens a step (micro_batch_size 1 x 1 process)\n"
        in phased.accepts()
    )


def test_two_phases_may_have_two_templates_and_the_run_keeps_both(phased: Desk) -> None:
    phased.change("loss_on: full", "template: other.md")
    (phased.folder / "other.md").write_text("Text: {{text}}\nLabel: {{label}}")
    from hpcft.launch.chain import _with_own_files

    (phased.folder / "new").mkdir()
    plan = make_plan(Path("demo.yaml"), (), None)
    recipe = _with_own_files(plan.recipe, phased.folder / "new", phased.folder / "demo")
    kept = [Path(str(each.data.template)) for each in recipe.each_phase()]
    assert [path.name for path in kept] == ["template-full.md", "template.md"]
    assert (phased.folder / "new" / "template-full.md").read_text().startswith("Text:")
