"""The recipes that we ship: each is one, and fits its cluster; and each goes its whole way on small parts."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpcft.recipefile import check_members
from tests.desk import Desk, make_desk
from tests.parts import make_tiny_encoder, make_tiny_gpt2, sentences
from tests.promise import hpcft

JOBS = Path(__file__).parent.parent / "jobs"
NAMES = sorted(path.stem for path in JOBS.glob("*.yaml") if path.stem != "demo")
WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "finance-sentiment-gpt2xl": {"news.csv": ("ticker", "headline", "preview", "sentiment=negative|neutral|positive")},
    "corpus-gpt2xl": {"train.csv": ("text",), "validation.csv": ("text",)},
    "preference-encoders": {"preferences.csv": ("prompt", "response_a", "response_b", "label=A|B|Tie")},
    "code-llama2-qlora": {"code.csv": ("instruction", "input", "output")},
    "dolly-gpt2": {"dolly.csv": ("instruction", "context", "response", "category=qa|chat")},
    "emotion-gpt2": {"emotion.csv": ("text", "label=sadness|joy|love|anger|fear|surprise")},
    "rte-gpt2-lora": {"rte.csv": ("sentence1", "sentence2", "label=entailment|not_entailment")},
}
"""Files of rows that stand for a recipe's own, with their columns; of some the values."""
IN_PLACE_OF_THE_HUB: Mapping[str, tuple[str, ...]] = {
    "code-llama2-qlora": ("data.train=../data/code.csv", "data.filter.max_tokens=90"),
    "dolly-gpt2": ("data.train=../data/dolly.csv",),
    "emotion-gpt2": tuple(f"data.{split}=../data/emotion.csv" for split in ("train", "validation", "test")),
    "rte-gpt2-lora": ("data.train=../data/rte.csv", "data.test=../data/rte.csv", "data.separator=5"),
}


def write_data(folder: Path, name: str, rows: int) -> None:
    """The files of a recipe."""
    chance = random.Random(0)
    some = sentences(chance)
    folder.mkdir()
    for file, columns in WORDS[name].items():
        with (folder / file).open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow([column.partition("=")[0] for column in columns])
            for number in range(rows):
                values = [column.partition("=")[2].split("|") for column in columns]
                writer.writerow([given[number % len(given)] if given != [""] else next(some) for given in values])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = make_desk(tmp_path, monkeypatch)
    shutil.copytree(JOBS, desk.folder / "jobs")
    for name in ("GROUP", "USER"):
        monkeypatch.setenv(name, "us")
    return desk


def test_every_recipe_has_its_stand_ins_here() -> None:
    assert set(NAMES) == set(WORDS)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_its_cluster_as_it_stands(desk: Desk, name: str) -> None:
    write_data(desk.folder / "data", name, 30)
    answer = desk.run("submit", f"jobs/{name}.yaml", "--dry-run", "--runs", "runs")
    assert (answer.code, answer.err) == (0, ""), answer.err
    assert name in answer.out


def test_the_grid_of_encoders_is_28_runs_that_differ_in_model_and_variant_alone() -> None:
    members = [member.file for member in check_members(JOBS / "preference-encoders.yaml") if member.file]
    recipes = [file.recipe for file in members]
    assert len({recipe.name for recipe in recipes}) == len(recipes) == 28
    assert len({recipe.model.path for recipe in recipes}) == 7
    assert {(recipe.model.weights, recipe.model.freeze) for recipe in recipes} == {
        ("random", "none"), ("pretrained", "body"), ("pretrained", 1), ("pretrained", "none")
    }  # fmt: skip
    assert {recipe.train.batch_size for recipe in recipes} == {64}


@pytest.mark.skipif("HPCFT_JOBS" not in os.environ, reason="`make jobs` tries them: half a minute each")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_goes_its_whole_way_on_small_parts(tmp_path: Path, name: str) -> None:
    shutil.copytree(JOBS, tmp_path / "jobs")
    write_data(tmp_path / "data", name, 300)
    encoder = name == "preference-encoders"
    (make_tiny_encoder if encoder else make_tiny_gpt2)(tmp_path / "model")
    sets = [*IN_PLACE_OF_THE_HUB.get(name, ()), f"data.max_length={128 if encoder else 250}"]
    if name in ("emotion-gpt2", "rte-gpt2-lora"):
        sets.append("data.config=null")
    if not encoder:
        sets.append("model.path=../model")
    else:
        recipe = tmp_path / f"jobs/{name}.yaml"
        recipe.write_text(re.sub(r"model\.path: [\w/.-]+", "model.path: ../model", recipe.read_text()))
    words = [word for text in sets for word in ("--set", text)]
    done = hpcft("submit", tmp_path / f"jobs/{name}.yaml", "--smoke", "--runs", tmp_path / "runs", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert " steps in 2 jobs: resumed at step " in done.stdout
