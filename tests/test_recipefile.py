"""The recipe: what YAML means, what --set changes, and every fault with its place and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcft.errors import UserError
from hpcft.launch.plan import make_plan
from hpcft.recipefile import is_hub_id, read_recipe
from tests.desk import RECIPE, Desk, make_desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


def test_defaults_are_filled_in_and_every_path_stands_beside_the_recipe(desk: Desk) -> None:
    desk.write("jobs/one.yaml", (desk.folder / "demo.yaml").read_text())
    desk.change("path: model", "path: ../model", "jobs/one.yaml")
    desk.change("  gpus: 1", "  gpus: 1\nenv: ./env", "jobs/one.yaml")
    recipe = read_recipe(Path("jobs/one.yaml")).recipe
    assert recipe.model.path == str(desk.folder / "model")
    assert recipe.data.train == str(desk.folder / "jobs/train.jsonl")
    assert recipe.data.template == str(desk.folder / "jobs/prompt.md")
    assert (recipe.cluster, recipe.env) == (str(desk.folder / "jobs/site.yaml"), str(desk.folder / "jobs/env"))
    assert (recipe.data.validation, recipe.train.batch_size, recipe.train.learning_rate) == (None, 8, 5e-5)


def test_a_hub_id_is_what_has_its_shape_and_is_no_folder_beside_the_recipe(desk: Desk) -> None:
    assert is_hub_id("openai-community/gpt2-xl", desk.folder)
    assert is_hub_id("gpt2", desk.folder)
    for text in ("model", "./gpt2", "../gpt2", "~/gpt2", "/models/gpt2", "a/b/c"):
        assert not is_hub_id(text, desk.folder), text


def test_a_section_whose_lines_are_all_comments_has_its_defaults(desk: Desk) -> None:
    desk.change("resources:\n  gpus: 1\n", "resources:\n  # gpus: 1\n")
    assert read_recipe(Path("demo.yaml")).recipe.resources.gpus == 1
    assert read_recipe(Path("demo.yaml"), ["resources.gpus=2"]).recipe.resources.gpus == 2


# --- faults: each with the whole message ---


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  steps: 10", "  stesp: 10", 'demo.yaml:10: unknown key "train.stesp". Did you mean "steps"?'),
        ("task:", "clutser: x\ntask:", 'demo.yaml:2: unknown key "clutser". Did you mean "cluster"?'),
        ("task:", "seed: 3\ntask:", 'demo.yaml:2: unknown key "seed". It belongs to the section "train".'),
        (
            "  path: model",
            "  path: model\n  zzz: 1",
            'demo.yaml:6: unknown key "model.zzz". Known here: freeze, path, quantize, revision, weights.',
        ),
        ("name: demo\n", "", 'demo.yaml:1: "name" is missing. Add `name: ...`.'),
        (
            "  path: model",
            "  revision: main",
            'demo.yaml:4: "model.path" is missing. Add `path: ...` to the section "model".',
        ),
        ("steps: 10", "steps: many", 'demo.yaml:10: train.steps = "many" is no whole number.'),
        ("steps: 10", "steps: 1e3", "demo.yaml:10: train.steps = 1000.0 is no whole number."),
        ("steps: 10", "steps: 0", "demo.yaml:10: train.steps = 0 is too small. It must be 1 at least."),
        ("steps: 10", "steps: true", "demo.yaml:10: train.steps = true is no whole number."),
        ("name: demo", "name: 7", "demo.yaml:1: name = 7 is no text. Put it in quotes."),
        (
            "name: demo",
            "name: my run",
            'demo.yaml:1: name = "my run" is no name. '
            "Write letters, digits, dots, dashes and underscores, 61 at most, a letter or digit first.",
        ),
        ("task: instruct", "task: instruckt", 'demo.yaml:2: task = "instruckt" is not known. Did you mean "instruct"?'),
        (
            "task: instruct",
            "task: chat",
            'demo.yaml:2: task = "chat" is not known. Known here: classify, corpus, entail, instruct, prefer.',
        ),
        (
            "  steps: 10",
            "  steps: 10\n  learning_rate: .inf",
            "demo.yaml:11: train.learning_rate = Infinity is no finite number.",
        ),
        (
            "  steps: 10",
            "  steps: 10\n  learning_rate: 0",
            "demo.yaml:11: train.learning_rate = 0 is too small. It must be greater than 0.",
        ),
        (
            "  steps: 10",
            "  steps: 10\n  beta2: 1",
            "demo.yaml:11: train.beta2 = 1 is too large. It must be less than 1.",
        ),
        (
            "  gpus: 1",
            "  walltime: 2h",
            'demo.yaml:12: resources.walltime = "2h" is no walltime. Write hours:minutes:seconds, as "2:00:00".',
        ),
        (
            "  gpus: 1",
            "  memory: 60 GB",
            'demo.yaml:12: resources.memory = "60 GB" is no amount of memory. Write it as Slurm does, "60G".',
        ),
        (
            "resources:\n  gpus: 1",
            "resources: 5",
            "demo.yaml:11: resources = 5 is no section. Write `key: value` lines below it, indented.",
        ),
        (
            "resources:",
            "evaluate: {choices: glad}\nresources:",
            'demo.yaml:11: evaluate.choices = "glad" is no list. Write [first, second].',
        ),
        (
            "resources:",
            "evaluate:\n  choices:\n    - glad\n    - 7\nresources:",
            "demo.yaml:14: evaluate.choices.1 = 7 is no text. Put it in quotes.",
        ),
        (
            "  steps: 10",
            "  steps: 10\n  save_every: often",
            'demo.yaml:11: train.save_every = "often" is not known. Write a whole number from 1 on or "auto".',
        ),
        (
            "  steps: 10",
            "  steps: " + "x" * 99,
            f'demo.yaml:10: train.steps = "{"x" * 58}… is no whole number.',
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line_and_its_remedy(
    desk: Desk, old: str, new: str, message: str
) -> None:
    desk.change(old, new)
    assert desk.faults() == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", 'demo.yaml:2: "name" stands here and in line 1. Keep one.'),
        ("train:\n  steps: 1\n  steps: 2\n", 'demo.yaml:3: "train.steps" stands here and in line 2. Keep one.'),
        ("name: [a\ntask: b\n", "demo.yaml:2: no valid YAML: expected ',' or ']', but got ':'."),
        ("name: a: b\n", "demo.yaml:1: no valid YAML: mapping values are not allowed here."),
        ("name: a\n---\nname: b\n", "demo.yaml:2: no valid YAML: expected a single document in the stream, "
         "but found another document."),
        ('name: demo\nenv: "a/\\0b"\n', "demo.yaml:2: no valid YAML: the character U+0000 is not allowed."),
        ("name: demo\ntask: a\ab\n", "demo.yaml:2: no valid YAML: the character U+0007 is not allowed."),
        ("name: x\ntrain: {steps: !!int x}\n", 'demo.yaml:2: no valid YAML: "x" does not fit its tag.'),
        ("name: &a [*a]\n", "demo.yaml:1: holds an alias of what it stands in. Remove that *alias."),
        ("- name\n", "demo.yaml:1: holds no mapping. Begin with `name: ...`."),
        ("just text", "demo.yaml:1: holds no mapping. Begin with `name: ...`."),
        (b"name: \xff\n", "demo.yaml: cannot be read: it is no UTF-8 text."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused_in_one_sentence(desk: Desk, text: str | bytes, message: str) -> None:
    desk.write("demo.yaml", text)
    assert desk.faults() == [message]


def test_a_recipe_that_is_not_there_or_a_folder_is_refused(desk: Desk) -> None:
    assert desk.faults(recipe="nosuch.yaml") == [
        "nosuch.yaml: cannot be read: no such file or directory. There: demo.yaml, here.yaml, site.yaml."
    ]
    assert desk.faults(recipe="no/such.yaml") == ["no/such.yaml: cannot be read: no such file or directory."]
    assert desk.faults(recipe="model") == ["model: cannot be read: is a directory."]


def test_an_empty_recipe_lacks_everything_that_has_no_default(desk: Desk) -> None:
    desk.write("demo.yaml", "")
    lacking = [f'demo.yaml:1: "{key}" is missing. Add `{key}: ...`.' for key in ("name", "task", "model", "data")]
    assert desk.faults() == lacking


def test_all_faults_are_told_at_once_those_of_the_schema_and_those_of_the_files(desk: Desk) -> None:
    desk.write(
        "demo.yaml",
        "name: demo\ntask: instruct\ncluster: orfeoo\nenv: nosuch\nmodel: {path: ./none}\n"
        "data:\n  train: gone.jsonl\n  template: prompt.md\ntrain:\n  stesp: 10\n  seed: -1\n",
    )
    assert desk.faults("--set", "train.batch=4") == [
        "demo.yaml:11: train.seed = -1 is too small. It must be 0 at least.",
        'demo.yaml:10: unknown key "train.stesp". Did you mean "steps"?',
        '--set train.batch: unknown key "train.batch". Did you mean "batch_size"?',
        'demo.yaml:3: no cluster "orfeoo". Did you mean "orfeo"?',
        'demo.yaml:4: env = "nosuch": conda knows no environment of this name. '
        "Write its prefix, as `conda env list` shows it.",
        "demo.yaml:5: none is no folder. Name a folder that save_pretrained has made, or a hub id, owner/name.",
        "demo.yaml:7: gone.jsonl cannot be read: no such file or directory. Name a file of rows.",
    ]


# --- --set ---


def test_set_is_typed_as_yaml_would_type_it_and_makes_sections_that_are_not_there(desk: Desk) -> None:
    overrides = (
        "train.learning_rate=5e-5",
        "evaluate.choices=[no, yes]",
        "resources.walltime=1:00:00",
        "name=007x",
        " data.columns.text = body",
        "train.clip_norm=null",
        "resources={gpus: 2, queued: 1}",
    )
    recipe = read_recipe(Path("demo.yaml"), overrides).recipe
    assert (recipe.train.learning_rate, recipe.train.steps, recipe.train.clip_norm) == (5e-5, 10, None)
    assert recipe.evaluate.choices == ("no", "yes")
    assert recipe.name == "007x"
    assert recipe.data.columns == {"text": "body"}
    # The last one replaced the whole section, walltime too.
    assert (recipe.resources.gpus, recipe.resources.queued, recipe.resources.walltime) == (2, 1, None)


def test_the_value_of_set_may_hold_equals_signs_and_colons(desk: Desk) -> None:
    recipe = read_recipe(Path("demo.yaml"), ["data.columns.text=a=b:c"]).recipe
    assert recipe.data.columns == {"text": "a=b:c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.stesp=5", '--set train.stesp: unknown key "train.stesp". Did you mean "steps"?'),
        ("sampling.top=5", '--set sampling.top: unknown key "sampling". Known here: cluster, data, env, evaluate, '
         "lora, matrix, model, name, notify, phases, resources, task, track, train."),
        ("train.steps", "--set train.steps: names no value. Write section.key=value."),
        ("=5", "--set =5: names no key. Write section.key=value."),
        ("train.steps=five", '--set train.steps: train.steps = "five" is no whole number.'),
        ("train={steps: five}", '--set train: train.steps = "five" is no whole number.'),
        ("train.steps=[", "--set train.steps: '[' is no YAML value: expected the node content, "
         "but found '<stream end>'. Quote it."),
        ('cluster="a/\\0b"', "--set cluster: '\"a/\\\\0b\"' is no YAML value: the character U+0000 is not allowed."),
        ("name.first=a", '--set name.first: "name" is no section of the recipe. Write section.key=value.'),
        ("name=&a [*a]", "--set name: '&a [*a]' holds an alias of what it stands in. Remove that *alias."),
        ("data.train=~nosuchuser/t.jsonl", "--set data.train: ~nosuchuser/t.jsonl cannot be read: "
         "no such file or directory. Name a file of rows."),
        ("train=5", "--set train: train = 5 is no section. Write `key: value` lines below it, indented."),
    ],
)  # fmt: skip
def test_a_wrong_set_is_named_as_it_was_given(desk: Desk, text: str, message: str) -> None:
    assert desk.faults("--set", text) == [message]


def test_a_fault_in_a_value_that_was_set_points_at_set_and_not_at_the_file(desk: Desk) -> None:
    batch = desk.faults("--set", "train={steps: 5, batch_size: 3, micro_batch_size: 2}")
    assert batch == ["--set train: train.batch_size = 3 is no multiple of micro_batch_size x processes = 2. Write 2."]


# --- whatever one may write ---

PIECES = ["", "~", "no", "5e-5", ".nan", "-.inf", "[", "{", "]", "{}", "[]", "&a [*a]", "*b", "<<: {a: 1}", "!!int x"]
PIECES += ["!x y", "|\n  a", "? [a]: b", "'", '"\\x"', "\t", "\x07", "\ufeff", "2:00:00", "9" * 30, "${x}", "a: b"]
PIECES += ["---", "{a: {b: {c: d}}}", "[1, [2]]", "!!binary aGk=", "!!set {a, b}", "!!timestamp x", "!!bool x", "1e999"]
PIECES += ["\u2028", "\U0001f40e", "../../../../etc", "/", ".", "~x/y", "a" * 300, "%", "@x", "`x`", "\0"]
KEYS = ["name", "task", "cluster", "env", "model", "data", "train", "evaluate", "resources", "model.path", "data.train"]
KEYS += ["data.template", "data.test", "train.steps", "train.epochs", "train.batch_size", "train.learning_rate", "x"]
KEYS += [
    "evaluate.choices",
    "evaluate.every",
    "resources.walltime",
    "resources.memory",
    "resources.gpus",
    "x.y",
    ".",
    "",
]
SETS = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(PIECES)), max_size=3)


@settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, len(RECIPE)), st.sampled_from(PIECES), SETS)
def test_whatever_one_writes_is_a_plan_or_refused_in_whole_sentences(
    desk: Desk, place: int, piece: str, given_sets: list[tuple[str, str]]
) -> None:
    desk.write("demo.yaml", RECIPE[:place] + piece + RECIPE[place:])
    try:
        make_plan(Path("demo.yaml"), tuple(f"{key}={value}" for key, value in given_sets), None)
    except UserError as refusal:
        assert refusal.faults
        for fault in refusal.faults:
            assert "\n" not in str(fault)
            assert fault.where, fault
            assert fault.what.endswith("."), fault
            assert not fault.what.endswith(".."), fault
            assert fault.fix == "" or fault.fix.endswith((".", "?")), fault
