"""The card: what a recipe takes of its memory, refused before the queue, and settings that fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpcft.launch.card import card_estimate, card_lines, least_bytes
from hpcft.launch.cluster import Choice, read_cluster
from hpcft.launch.condaenv import Env
from hpcft.recipefile import read_recipe
from tests.desk import Desk
from tests.launch.test_room import GIGA, disk_of, model_of
from tests.parts import make_tiny_gpt2

XL = 1_557_611_200
"""Parameters of GPT-2 XL."""


def test_a_model_whose_states_alone_overfill_the_card_is_refused(desk: Desk) -> None:
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "gpu_memory: 32\n")
    disk_of(desk, 1000 * GIGA)
    model_of(desk, XL)
    least = "# GPU memory   at least {} GiB of 32 a card for 1.56 billion parameters; activations come on top\n"
    assert least.format("23.2") in desk.accepts()
    assert least.format("26.1") in desk.accepts("--set", "train.precision=fp16")
    model_of(desk, 2_000_000_000)
    desk.accepts()
    refusal = (
        "demo.yaml:5: 2.00 billion parameters take 33.5 GiB with their gradients and AdamW's moments, and a V100 of "
        "site has 32. Choose a smaller model, or a cluster with larger cards; `--dry-run` names settings that fit, if "
        "any do."
    )
    assert desk.faults("--set", "train.precision=fp16") == [refusal]
    dry = desk.run("submit", "demo.yaml", "--dry-run", "--set", "train.precision=fp16")
    assert (dry.code, dry.err) == (2, f"hpcft: {refusal}\n")
    assert least.replace("1.56", "2.00").format("33.5") in dry.out


@pytest.mark.parametrize(
    ("train", "resources", "gibibytes"),
    [
        ({"precision": "fp16"}, {}, 26.1),
        ({"precision": "fp16", "gradient_checkpointing": True}, {}, 23.2),
        ({"precision": "fp16", "optimizer": "adamw-8bit"}, {}, 17.4),
        ({"precision": "fp16", "sharding": "zero2"}, {"gpus": 2}, 14.5),
        ({"precision": "fp16", "sharding": "full"}, {"gpus": 2}, 11.6),
        ({"precision": "fp16", "sharding": "zero2", "offload": True}, {}, 2.9),
    ],
)
def test_the_least_that_a_card_must_hold_of_gpt2_xl(
    desk: Desk, train: dict[str, object], resources: dict[str, object], gibibytes: float
) -> None:
    sets = [f"train.{key}={json.dumps(value)}" for key, value in train.items()]
    sets += [f"resources.{key}={value}" for key, value in resources.items()]
    recipe = read_recipe(Path("demo.yaml"), sets).recipe
    assert least_bytes(recipe, XL) / 2**30 == pytest.approx(gibibytes, abs=0.06)


@pytest.mark.slow
def test_the_estimate_comes_from_the_env_s_own_python_and_names_settings_that_fit(desk: Desk) -> None:
    make_tiny_gpt2(desk.folder / "tiny", width=256, layers=4)
    desk.change("path: model", "path: ./tiny")
    desk.write("site.yaml", (desk.folder / "site.yaml").read_text() + "gpu_memory: 0.15\n")
    sets = ["data.max_length=256", "train.micro_batch_size=8", "train.precision=fp16"]
    recipe = read_recipe(Path("demo.yaml"), sets).recipe
    cluster = read_cluster(Choice("./site.yaml", "--cluster"))
    found = card_estimate(recipe, cluster, Env(Path(sys.executable).parents[1]))
    assert isinstance(found, dict), found
    first, verdict, *settings = card_lines(recipe, cluster, found)
    assert first.startswith("0.2 GiB of 0.15 a card, estimated: ")
    assert verdict == "it does not fit; these settings do, by the same estimate:"
    assert [line.split("  ")[0] for line in settings] == [
        "--set train.micro_batch_size=4",
        "--set train.gradient_checkpointing=true",
    ]


def test_an_env_that_cannot_estimate_says_why(desk: Desk) -> None:
    make_tiny_gpt2(desk.folder / "tiny")
    desk.change("path: model", "path: ./tiny")
    recipe, env = read_recipe(Path("demo.yaml")).recipe, desk.env("env")
    cluster = read_cluster(Choice("./site.yaml", "--cluster"))
    answer = card_estimate(recipe, cluster, Env(env))
    assert isinstance(answer, str)
    assert answer.startswith(f"the env {env} cannot estimate it: ")
