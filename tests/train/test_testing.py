"""Tests on held-out rows: cut without trace, shared among processes, and never seen by the training."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from hpcft.disk import read_json
from hpcft.rundir import RunDir
from hpcft.sections import Generate
from hpcft.train.control import Control, Stop
from hpcft.train.evaluate import validate
from hpcft.train.log import Log
from hpcft.train.loop import measure, micro_batches
from hpcft.train.step import one_step
from hpcft.train.testing import draw_stages, examine, make_test
from hpcft.train.training import Training
from tests.parts import write_documents
from tests.train.pieces import begin, digest, make_parts, make_run

pytestmark = pytest.mark.slow

LABELS = ["node", "queue", "loss curve"]
DRAWN = {"choices": LABELS, "generate": {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    make_parts(folder)
    rows = [{"question": f"{'Well, ' * (n % 5)}what waits ({n})?", "answer": LABELS[n % 3]} for n in range(17)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_documents(folder / "documents.csv", 30)
    return folder


def begun(parts: Path, path: Path, evaluate: dict[str, Any], **data: Any) -> Training:
    return begin(make_run(parts, path, {}, data={"test": str(parts / "test.jsonl"), **data}, evaluate=evaluate))


class StopsAt(Control):
    """A supervisor that wants us to stop at the third look."""

    looks = 0

    def stop_requested(self) -> bool:
        self.looks += 1
        return self.looks > 2


def ask(training: Training, out: Path, control: Control) -> dict[str, Any]:
    test = make_test(training.run, training.recipe, training.tokenizer, training.control)
    assert test
    return examine(test, training.model, out, 3, control, contextlib.nullcontext, {"step": 0})


@pytest.mark.parametrize("evaluate", [{"choices": LABELS}, DRAWN, {}], ids=["likeliest", "drawn", "loss"])
def test_a_test_that_is_cut_goes_on_where_it_was_and_ends_the_same(
    parts: Path, tmp_path: Path, evaluate: dict[str, Any]
) -> None:
    training, alone = begun(parts, tmp_path / "run", evaluate), Control(0, 1, tmp_path / "no")
    whole, cut = tmp_path / "whole" / "after.json", tmp_path / "cut" / "after.json"
    expected = ask(training, whole, alone)
    with pytest.raises(Stop):
        ask(training, cut, StopsAt(0, 1, tmp_path / "no"))
    assert not cut.exists()
    lines = cut.with_name("after.part-0.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 6
    # As a kill in the middle of the last line leaves it: its batch is asked again.
    cut.with_name("after.part-0.jsonl").write_text("\n".join(lines)[:-9])
    assert {**ask(training, cut, alone), "seconds": 0} == {**expected, "seconds": 0}
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(cut.with_suffix(".parquet")), pandas.read_parquet(whole.with_suffix(".parquet"))
    )
    assert not list(cut.parent.glob("*.part-*")) and read_json(cut)
    assert cut.with_suffix(".png").exists() == bool(evaluate)


def test_any_number_of_processes_finds_the_same(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = begun(parts, tmp_path / "run", DRAWN)
    expected = ask(training, tmp_path / "one" / "after.json", Control(0, 1, tmp_path / "no"))
    records: dict[int, Any] = {}

    class OneOfTwo(Control):
        """Two processes, one after the other: what they gather is what both have."""

        def share(self, value: int) -> int:
            return value

        def gather(self, value: Any) -> list[Any]:
            if not isinstance(value, dict):
                return [(None, {})]  # nothing was known when both began
            records.update(value)
            return [dict(records)]

        def wait(self) -> None:
            return

    (tmp_path / "two").mkdir()
    for rank in (1, 0):
        found = ask(training, tmp_path / "two" / "after.json", OneOfTwo(rank, 2, tmp_path / "no"))
    assert len(records) == 17 and {**found, "seconds": 0} == {**expected, "seconds": 0}


def test_another_model_or_other_rows_begin_anew(parts: Path, tmp_path: Path) -> None:
    training, alone = begun(parts, tmp_path / "run", {"choices": LABELS}), Control(0, 1, tmp_path / "no")
    test = make_test(training.run, training.recipe, training.tokenizer, training.control)
    out = tmp_path / "out" / "test.json"

    def look(test: Any, step: int, control: Control = alone) -> dict[str, Any]:
        return examine(test, training.model, out, 3, control, contextlib.nullcontext, {"step": step})

    with pytest.raises(Stop):
        look(test, 1, StopsAt(0, 1, tmp_path / "no"))
    first = look(test, 2)
    assert first["step"] == 2 and first["rows"] == 17
    assert look(test, 2) == first, "what is known is not asked again"
    fewer = replace(test, rows=test.rows[:5])  # type: ignore[type-var]
    assert look(fewer, 2)["rows"] == 5


def test_the_untuned_model_stands_beside_the_tuned_one(parts: Path, tmp_path: Path) -> None:
    training = begun(parts, tmp_path / "run", {"choices": LABELS, "batch_size": 4})
    log = Log(training, None)
    measure(training, log, "before")
    batches = micro_batches(training)
    for step in range(8):
        one_step(training, batches, step)
        training.position.step = step + 1
    measure(training, log, "before")
    measure(training, log, "after")
    folder = training.run.evaluation
    after = read_json(folder / "after.json") or {}
    low, high = after["over_untuned"]["interval"]
    assert low <= after["over_untuned"]["gain"] <= high
    before = read_json(folder / "before.json") or {}
    assert after["accuracy"] - before["accuracy"] == pytest.approx(after["over_untuned"]["gain"])
    assert (before["step"], after["step"]) == (0, 8)
    table = pandas.read_parquet(folder / "after.parquet")
    assert list(table.columns) == ["row", "truth", "answer", *(f"p({label})" for label in LABELS)]
    assert table["row"].tolist() == list(range(17)) and table["truth"].tolist()[:3] == LABELS
    assert (folder / "confusion.png").stat().st_size > 5_000
    (folder / "confusion.png").unlink()
    (folder / "before.json").unlink()
    draw_stages(folder)
    assert not (folder / "confusion.png").exists(), "one matrix has nothing to stand beside"


def test_the_loss_of_a_test_is_that_of_the_same_rows_in_validation(parts: Path, tmp_path: Path) -> None:
    documents = {"template": None, "test": str(parts / "documents.csv"), "validation": str(parts / "documents.csv")}
    run = make_run(parts, tmp_path / "run", {}, task="corpus", data={**documents, "train": documents["test"]})
    training = begin(run)
    report = ask(training, tmp_path / "out" / "test.json", Control(0, 1, tmp_path / "no"))
    assert training.validation
    found = validate(training.model, training.validation, 4, training.pad, training.control, contextlib.nullcontext)
    loss = found.loss
    assert found.accuracy is None, "tokens are no answers"
    assert report["loss"] == pytest.approx(loss, rel=1e-5)
    assert report["perplexity"] == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-4)
    table = pandas.read_parquet(tmp_path / "out" / "test.parquet")
    assert table["targets"].sum() == report["targets"] and len(table) == report["rows"]


def test_a_training_is_the_same_with_a_test_in_its_midst_and_without(parts: Path, tmp_path: Path) -> None:
    found = []
    for name, evaluate in (("with", DRAWN), ("without", {})):
        training = begun(parts, tmp_path / name, evaluate)
        batches = micro_batches(training)
        for step in range(4):
            one_step(training, batches, step)
            training.position.step = step + 1
            if name == "with":
                measure(training, Log(training, None), f"at-{step}")
        found.append(digest(training))
    assert found[0] == found[1]
    answers = pandas.read_parquet(RunDir(tmp_path / "with").evaluation / "at-3.parquet")
    assert answers["text"].str.len().sum() > 17, "nothing was written"


def test_a_written_answer_is_read_for_the_label_that_it_names(parts: Path, tmp_path: Path) -> None:
    training = begun(parts, tmp_path / "run", {"choices": LABELS, "generate": {"max_new_tokens": 3}})
    test = make_test(training.run, training.recipe, training.tokenizer, training.control)
    wanted = {"loss curve": "a Loss  curve!", "node": "nodes", "queue": "queue"}

    class Writes:
        """Writes these texts behind the prompts, and holds what it was given."""

        def __init__(self) -> None:
            self.inner, self.shown = training.model.inner, []

        def parameters(self) -> Any:
            return training.model.parameters()

        def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
            self.shown.append((input_ids, attention_mask))
            texts = [training.tokenizer(wanted[LABELS[row % 3]]).input_ids for row in rows]
            longest, end = max(map(len, texts)) + 1, training.tokenizer.eos_token_id
            behind = torch.tensor([text + [end] * (longest - len(text)) for text in texts])
            return torch.cat([input_ids, behind], dim=1)

    rows, model = [0, 1, 2], Writes()
    records = test.answer(model, rows, 0)  # type: ignore[union-attr]
    assert [record["answer"] for record in records] == [None, "queue", "loss curve"]
    assert [record["text"] for record in records] == ["nodes", "queue", "a Loss  curve!"]
    ((tokens, mask),) = model.shown
    assert mask[:, -1].all() and not mask[0, 0] and (mask.diff(dim=1) >= 0).all(), "padding is on the left alone"
    shown = [training.tokenizer.decode(row[seen.bool()]) for row, seen in zip(tokens, mask, strict=True)]
    assert shown == [f"### Question\n{'Well, ' * n}what waits ({n})?\n\n### Answer\n" for n in range(3)]
    assert Generate().max_new_tokens == 32
