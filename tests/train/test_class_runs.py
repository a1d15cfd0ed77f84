"""Runs of the tasks with labels: cut anywhere they end as one that is not, are tested, and leave a model to use."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hpcft.disk import write_json
from hpcft.errors import UserError
from hpcft.rundir import RunDir
from hpcft.train import export
from hpcft.train.assess import assess
from hpcft.train.loop import train
from hpcft.train.pair import Pair
from tests.parts import make_tiny_encoder, make_tiny_gpt2, write_labelled
from tests.promise import outcome
from tests.train.pieces import begin, train_job

pytestmark = pytest.mark.slow

STEPS = 8
WAYS: dict[str, dict[str, Any]] = {
    "classify-gpt2": {"task": "classify", "model": "gpt2"},
    "classify-random-bert": {"task": "classify", "model": "bert", "weights": "random", "grouping": "plain"},
    "entail-gpt2-lora": {"task": "entail", "model": "gpt2", "lora": {"rank": 4, "dropout": 0.1}},
    "entail-bert-body": {"task": "entail", "model": "bert", "freeze": "body"},
    "prefer-bert": {"task": "prefer", "model": "bert", "pair": "with_prompt"},
    "prefer-roberta-bottom": {"task": "prefer", "model": "roberta", "freeze": 1},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    make_tiny_gpt2(folder / "gpt2")
    for family in ("bert", "roberta"):
        make_tiny_encoder(folder / family, family)
    for task in ("classify", "entail", "prefer"):
        for split, rows in (("train", 40), ("validation", 10), ("test", 21)):
            write_labelled(folder / f"{task}-{split}.jsonl", rows, task, seed=rows)
    return folder


@pytest.fixture(autouse=True)
def no_precision_of_another_test() -> Iterator[None]:
    """accelerate keeps it for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def make_run(parts: Path, path: Path, way: dict[str, Any], **data: Any) -> RunDir:
    """A run that no job has begun."""
    task = way["task"]
    files = {split: str(parts / f"{task}-{split}.jsonl") for split in ("train", "validation", "test")}
    pair = {"pair": way["pair"]} if "pair" in way else {}
    model = {key: way[key] for key in ("weights", "freeze") if key in way}
    recipe = {
        "name": path.name,
        "task": task,
        "cluster": "local",
        "model": {"path": str(parts / way["model"]), **model},
        "data": {**files, "max_length": 48, "workers": 0, **pair, **data},
        "train": {
            "steps": STEPS,
            "batch_size": 4,
            "micro_batch_size": 2,
            "learning_rate": 3e-3,
            "grouping": way.get("grouping", "bucketed"),
        },
        "evaluate": {"every": 4, "batch_size": 4},
        "resources": {"gpus": 0},
        **({"lora": way["lora"]} if "lora" in way else {}),
    }
    path.mkdir(parents=True)
    write_json(path / "recipe.json", recipe)
    return RunDir(path)


def run_in_pieces(run: RunDir, *stops: int) -> RunDir:
    """The finished run, in one job more than it is stopped."""
    for number, stop in enumerate([*stops, None], 1):
        run.job(number).path.mkdir(parents=True)  # a job that was never submitted has no part in the curve
        write_json(run.job(number).path / "submitted.json", {"slurm_id": str(number), "walltime": 3600})
        assert train_job(run, number, stop) == ("stopped" if stop else "finished")
    return run


@pytest.fixture(scope="module")
def finished(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """An uncut run of every way."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: run_in_pieces(make_run(parts, folder / name, way)) for name, way in WAYS.items()}


def test_runs_of_different_kinds_differ(finished: dict[str, RunDir]) -> None:
    outcomes = [outcome(run) for run in finished.values()]
    assert len({one.weights for one in outcomes}) == len(outcomes)
    assert all([step for step, _ in one.curve] == list(range(1, STEPS + 1)) for one in outcomes)
    for one in outcomes:
        assert [step for step, _ in one.validation] == [step for step, _ in one.accuracy] == [0, 4, 8]
    assert len({value for one in outcomes for _, value in one.accuracy}) > 3, "the same whatever is learnt"


@pytest.mark.parametrize("name", WAYS)
def test_a_run_in_three_pieces_is_the_uncut_one(
    parts: Path, tmp_path: Path, finished: dict[str, RunDir], name: str
) -> None:
    cut = run_in_pieces(make_run(parts, tmp_path / name, WAYS[name]), 3, 6)
    assert outcome(cut) == outcome(finished[name])
    for when in ("before", "after"):
        ours, theirs = (json.loads((run.evaluation / f"{when}.json").read_text()) for run in (cut, finished[name]))
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        assert ours["rows"] == 21 and sum(map(sum, ours["confusion"])) == 21
        assert ("exchanged" in ours) == name.startswith("prefer")


class Once:
    """Stands in the place of the stop file: there at the so many-th look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def exists(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_test_that_is_stopped_goes_on_and_says_the_same(
    parts: Path, tmp_path: Path, finished: dict[str, RunDir]
) -> None:
    run = make_run(parts, tmp_path / "run", WAYS["prefer-bert"])
    training = begin(run)
    training.control.stop_file = Once(2)  # type: ignore[assignment]
    assert train(training) == "stopped"
    assert len((run.evaluation / "before.part-0.jsonl").read_text().splitlines()) == 1 + 8, "two passes of four rows"
    begin_again = begin(run, 2)
    train(begin_again)
    ours, theirs = (json.loads((one.evaluation / "before.json").read_text()) for one in (run, finished["prefer-bert"]))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0} and not list(run.evaluation.glob("*.part-*"))


@pytest.mark.parametrize("name", ["classify-gpt2", "classify-random-bert", "entail-gpt2-lora"])
def test_an_exported_model_says_in_a_pipeline_what_the_run_says(
    finished: dict[str, RunDir], tmp_path: Path, parts: Path, name: str
) -> None:
    run = finished[name]
    for which in ("model", str(STEPS)):
        export.export(run, tmp_path / which, "fp32", keep_adapter=False, which=which)
    assess(run, "test", "model", tmp_path)
    afterwards = json.loads((run.evaluation / "test-model.json").read_text())
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    last = AutoModelForSequenceClassification.from_pretrained(tmp_path / str(STEPS))
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), last.parameters(), strict=True))
    labels = ["false", "true"] if name.startswith("entail") else ["gradient", "node", "other", "queue"]
    assert model.config.label2id == {label: number for number, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.pad_token_id == model.config.pad_token_id is not None
    rows = [json.loads(line) for line in (parts / f"{name.split('-')[0]}-test.jsonl").read_text().splitlines()]
    texts = [row["text"] if "text" in row else f"{row['first']}<|endoftext|>{row['second']}" for row in rows]
    classifier = pipeline("text-classification", str(tmp_path / "model"), device="cpu", batch_size=4)
    answers = [found["label"] for found in classifier(texts, truncation=True, max_length=48)]
    told = json.loads((run.evaluation / "after.json").read_text())
    confusion = [[0] * len(labels) for _ in labels]
    for row, answer in zip(rows, answers, strict=True):
        confusion[labels.index(str(row["label"]).lower())][labels.index(answer)] += 1
    assert confusion == told["confusion"] == afterwards["confusion"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and 'print(ask("...")[0]["label"])' in card


def test_an_exported_pair_is_the_one_that_was_trained(finished: dict[str, RunDir], tmp_path: Path) -> None:
    run = finished["prefer-bert"]
    for which in ("model", str(STEPS)):
        export.export(run, tmp_path / which, "fp32", keep_adapter=False, which=which)
    found, last, left = (Pair.from_pretrained(path) for path in (tmp_path / "model", tmp_path / "8", run.final_model))
    for name, tensor in left.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor) and torch.equal(last.state_dict()[name], tensor)
    assert found.facts["pair"] == "with_prompt"


def test_the_card_of_a_pair_shows_how_it_is_asked(
    finished: dict[str, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export.export(finished["prefer-bert"], tmp_path / "out", "fp32", keep_adapter=False, which="model")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "text-generation" not in card
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(card.split("```python\n")[1].split("```")[0], {})
    chances = ast.literal_eval(capsys.readouterr().out)
    assert list(chances) == ["A", "B", "Tie"]
    assert sum(chances.values()) == pytest.approx(1.0)


def test_a_label_that_is_only_in_the_test_rows_is_said_before_anything_is_learnt(parts: Path, tmp_path: Path) -> None:
    rows = tmp_path / "test.jsonl"
    rows.write_text('{"text": "The queue waits.", "label": "queue"}\n{"text": "A walltime.", "label": "walltime"}\n')
    run = make_run(parts, tmp_path / "run", WAYS["classify-gpt2"], test=str(rows))
    with pytest.raises(UserError) as error:
        begin(run)
    what = 'its label "walltime" is none of the classes. Known: gradient, node, other, queue.'
    assert str(error.value) == f"{rows}, row 2: {what}"


def test_classes_are_those_of_the_recipe_in_its_order(parts: Path, tmp_path: Path) -> None:
    order = ["queue", "other", "node", "gradient"]
    training = begin(make_run(parts, tmp_path / "run", WAYS["classify-gpt2"], labels=order))
    assert training.model.inner.config.id2label == dict(enumerate(order))
    assert not (training.run.path / "labels.json").exists()
    first = json.loads((parts / "classify-train.jsonl").read_text().splitlines()[0])
    assert training.train.labels is not None and order[training.train.labels[0]] == first["label"]
