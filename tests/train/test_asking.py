"""A run's model asked afterwards: on held-out rows, and for what it writes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from hpcft.disk import read_json
from hpcft.errors import UserError
from hpcft.launch.generate import Writing
from hpcft.launch.inenv import Left
from hpcft.rundir import RunDir
from hpcft.train import generate
from hpcft.train.assess import assess
from hpcft.train.final import finish
from hpcft.train.left import load_left
from hpcft.train.log import Log
from hpcft.train.loop import count_step, measure, micro_batches
from hpcft.train.saving import Saver
from hpcft.train.step import one_step
from tests.train.pieces import begin, make_parts, make_run

pytestmark = pytest.mark.slow

LABELS = ["node", "queue", "loss curve"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run with a checkpoint of step 3, tested before and after."""
    parts = tmp_path_factory.mktemp("parts")
    make_parts(parts)
    rows = [{"question": f"{'Well, ' * (n % 5)}what waits ({n})?", "answer": LABELS[n % 3]} for n in range(17)]
    (parts / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run(
        parts,
        parts / "runs" / "run",
        {"learning_rate": 3e-4},
        data={"test": str(parts / "test.jsonl")},
        evaluate={"choices": LABELS, "batch_size": 4, "generate": {"max_new_tokens": 5}},
    )
    training = begin(run)
    log, batches = Log(training, None), micro_batches(training)
    measure(training, log, "before")
    for step in range(training.total_steps):
        count_step(training.position, one_step(training, batches, step))
        if step == 2:
            Saver(training, None).last()
    measure(training, log, "after")
    finish(training)
    return run


def answers(path: Path) -> pandas.DataFrame:
    return pandas.read_parquet(path)[["row", "truth", "answer", "text"]]


def test_an_evaluation_afterwards_finds_what_the_run_itself_found(run: RunDir, tmp_path: Path) -> None:
    for which, name, stage in (("model", "test-model", "after"), ("0", "test-step-0", "before")):
        assess(run, "test", which, tmp_path)
        report, known = (read_json(run.evaluation / f"{each}.json") or {} for each in (name, stage))
        assert {key: report[key] for key in ("accuracy", "rows", "step", "confusion", "unparsed")} == {
            key: known[key] for key in ("accuracy", "rows", "step", "confusion", "unparsed")
        }
        left, right = (answers(run.evaluation / f"{each}.parquet") for each in (name, stage))
        pandas.testing.assert_frame_equal(left, right)
        assert (run.evaluation / f"{name}.png").exists()
    assess(run, "test", "3", tmp_path)
    between = read_json(run.evaluation / "test-step-3.json") or {}
    assert between["step"] == 3 and "over_untuned" in between
    texts = [answers(run.evaluation / f"{name}.parquet")["text"].tolist() for name in ("test-step-3", "after")]
    assert texts[0] != texts[1]


def test_a_split_without_labels_among_the_choices_is_named(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        assess(run, "train", "model", tmp_path)
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"{run.recipe.data.train}, row 1: ") and "is none of evaluate.choices." in first


def said(capsys: pytest.CaptureFixture[str], writing: Writing) -> str:
    capsys.readouterr()
    assert generate.main(writing.as_json()) == 0
    return capsys.readouterr().out


def test_one_prompt_is_written_behind_in_the_template_as_the_model_would(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    writing = Writing(Left(run), prompt="what waits (0)?")
    text = said(capsys, writing)
    table = pandas.read_parquet(run.evaluation / "after.parquet")
    assert text.strip() == table["text"][0].strip() != "" and text.endswith("\n")
    drawn = {"temperature": 2.0, "seed": 1, "max_new_tokens": 8}
    once = said(capsys, replace(writing, settings=drawn))
    assert said(capsys, replace(writing, settings=drawn)) == once != text
    assert said(capsys, replace(writing, settings={**drawn, "seed": 2})) != once
    assert said(capsys, replace(writing, settings={"top_k": 1})) == text, "to name top_k is to draw; of one"
    assert said(capsys, replace(writing, raw=True)) != text


def test_a_file_is_written_in_its_order_whatever_the_batch(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in Path(str(run.recipe.data.test)).read_text().splitlines()]
    expected = pandas.read_parquet(run.evaluation / "after.parquet")["text"].tolist()
    for batch in (3, 17):
        out = tmp_path / f"{batch}.jsonl"
        writing = Writing(Left(run), input=Path(str(run.recipe.data.test)), output=out, batch_size=batch)
        assert said(capsys, writing) == ""
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert [{**row, "generated": text} for row, text in zip(rows, expected, strict=True)] == found
    (tmp_path / "prompts.txt").write_text("The queue\n\nThe node waits for\n")
    printed = said(capsys, Writing(Left(run), input=tmp_path / "prompts.txt", raw=True)).splitlines()
    assert [json.loads(line)["prompt"] for line in printed] == ["The queue", "The node waits for"]
    (tmp_path / "rows.jsonl").write_text('{"question": "Who?"}\n{"text": "no question"}\n')
    out = tmp_path / "none.jsonl"
    assert generate.main(Writing(Left(run), input=tmp_path / "rows.jsonl", output=out).as_json()) == 2
    where = f'hpcft: {tmp_path / "rows.jsonl"}, row 2: has no column "question". It has "text".\n'
    assert capsys.readouterr().err.endswith(where)
    assert not out.exists() and not list(tmp_path.glob(".writing*"))


def test_a_talk_answers_line_by_line_in_the_template(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what waits (0)?\nWell, what waits (1)?\n"))
    text = said(capsys, Writing(Left(run)))
    expected = pandas.read_parquet(run.evaluation / "after.parquet")["text"].tolist()
    assert [part.strip() for part in text.split("> ")] == ["", expected[0].strip(), expected[1].strip(), ""]


@pytest.mark.parametrize(
    ("settings", "prompts", "message"),
    [
        ({"max_new_tokens": 10**6}, b"The queue\n", "max_new_tokens = 1000000: the model has "),
        ({}, "caf\xe9\n".encode("latin-1"), "{0}: is no UTF-8 text. Save the file as UTF-8."),
    ],
)
def test_what_cannot_be_asked_is_said(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: Any, prompts: bytes, message: str
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(prompts)
    writing = Writing(Left(run), input=path, output=tmp_path / "out.jsonl", raw=True, settings=settings)
    assert generate.main(writing.as_json()) == 2
    assert capsys.readouterr().err.startswith(f"hpcft: {message.format(path)}")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.fixture
def chatty(run: RunDir, tmp_path: Path) -> tuple[Path, Any]:
    """A folder whose tokenizer has a chat template, and that tokenizer."""
    folder = tmp_path / "chatty"
    load_left(run, "model", torch.device("cpu")).inner.save_pretrained(folder)
    tokenizer: Any = generate.load_tokenizer(run.recipe.model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }} {% endfor %}a:"
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


def chat(monkeypatch: pytest.MonkeyPatch, chatty: tuple[Path, Any], lines: list[str], cut_short: int = -1) -> list[str]:
    """The prompts that the model gets in a talk; Ctrl-C comes while it writes the answer of this number."""
    seen: list[str] = []
    complete = generate.complete

    def listen(model: Any, device: Any, config: Any, prompts: Any, *more: Any, **others: Any) -> Any:
        seen.append(chatty[1].decode(prompts[0]))
        if len(seen) - 1 == cut_short:
            raise KeyboardInterrupt
        return complete(model, device, config, prompts, *more, **others)

    monkeypatch.setattr(generate, "complete", listen)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert generate.main(Writing(chatty[0], settings={"max_new_tokens": 3}).as_json()) == 0
    return seen


def test_a_chat_template_of_the_model_itself_gets_all_that_was_said(
    chatty: tuple[Path, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = chat(monkeypatch, chatty, ["one", "two"])
    answer = capsys.readouterr().out.split("> ")[1].rstrip("\n")
    assert seen == ["u:one a:", f"u:one a:{answer} u:two a:"]


def test_an_answer_that_was_cut_short_is_forgotten_with_its_question(
    chatty: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chat(monkeypatch, chatty, ["one", "two"], cut_short=0) == ["u:one a:", "u:two a:"]


def test_a_chat_that_outgrows_the_model_forgets_its_beginning(
    chatty: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = json.loads((chatty[0] / "config.json").read_text())["n_positions"]
    lines = [f"{number} {'what waits? ' * (positions // 20)}" for number in range(9)]
    seen = chat(monkeypatch, chatty, [*lines, "endless " * positions])
    for number, prompt in enumerate(seen[:-1]):
        assert prompt.endswith(f"u:{lines[number]} a:") and prompt.startswith("u:")
        assert len(chatty[1](prompt)["input_ids"]) <= positions - 3
    assert seen[1].startswith("u:0 ") and not seen[8].startswith("u:0 ")
    assert len(chatty[1](seen[-1])["input_ids"]) <= positions and seen[-1].endswith("endless  a:")
