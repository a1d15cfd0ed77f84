"""The likeliest choice, by a short cut or by the long way, and the rows that cannot be asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from hpcft.errors import UserError
from hpcft.sections import Model
from hpcft.tasks.tokenize import tokenize
from hpcft.template import PromptTemplate
from hpcft.train.choices import ChoiceTest
from hpcft.train.model import LossModel, load_model
from tests.parts import make_tiny_gpt2

ROWS = [{"question": f"Who waits for note {number}?", "answer": "Yes"} for number in range(7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("parts") / "gpt2")


@pytest.fixture(scope="module")
def model(folder: Path) -> LossModel:
    return load_model(Model(path=str(folder)))


def choice_test(folder: Path, *choices: str) -> ChoiceTest:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return ChoiceTest(PromptTemplate("Q: {{question}}\nA:\n{{answer}}"), tokenizer, ROWS, choices, 100)


def by_hand(test: ChoiceTest, model: LossModel, row: int) -> list[float]:
    """Log-probability of each choice's tokens behind the prompt, one plain forward pass each."""
    prompt, _ = test.template.render(test.rows[row])
    scores = []
    for choice in test.choices:
        [text] = tokenize(test.tokenizer, [prompt + choice])
        with torch.no_grad():
            logits = model.model(torch.tensor([text.tokens])).logits[0].log_softmax(-1)
        first = next(place for place, end in enumerate(text.ends) if end > len(prompt))
        scores.append(sum(float(logits[place - 1, text.tokens[place]]) for place in range(first, len(text.tokens))))
    return scores


@pytest.mark.parametrize("choices", [("Y", "N"), ("The queue waits", "Nobody", "N")])
def test_scores_are_those_of_a_plain_forward_pass(folder: Path, model: LossModel, choices: tuple[str, ...]) -> None:
    test = choice_test(folder, *choices)
    model.eval()
    queries = [query for row in range(len(ROWS)) for query in test.queries(row)]
    assert len(queries) == len(ROWS) * (1 if choices == ("Y", "N") else 3)
    with torch.no_grad():
        scores = test.scores(model, queries, pad=0)
    for row in range(len(ROWS)):
        mine = [index for index, query in enumerate(queries) if query.row == row]
        assert scores[mine].sum(0).tolist() == pytest.approx(by_hand(test, model, row), abs=1e-4)


def test_the_answer_is_the_likeliest_choice_and_knows_how_likely(folder: Path, model: LossModel) -> None:
    test = choice_test(folder, "The queue waits", "Nobody", "N")
    model.eval()
    with torch.no_grad():
        records = test.answer(model, [4, 2], 0)
    assert [record["row"] for record in records] == [4, 2]
    for record in records:
        scores = torch.tensor(by_hand(test, model, record["row"]))
        shares = dict(zip(test.choices, scores.softmax(0).tolist(), strict=True))
        assert record["probabilities"] == pytest.approx(shares, abs=1e-4)
        assert record["answer"] == max(shares, key=lambda choice: shares[choice])


def test_the_report_counts_what_was_answered(folder: Path) -> None:
    test = choice_test(folder, "Yes", "No")
    sure = {"Yes": 0.7, "No": 0.3}
    records = [
        {"row": row, "truth": "Yes", "answer": "No" if row >= 5 else "Yes", "probabilities": sure} for row in range(7)
    ]
    report = test.report(records)
    assert report["accuracy"] == 5 / 7
    assert report["majority"] == 1.0
    assert report["confusion"] == [[5, 2], [0, 0]]
    assert report["calibration"]["bins"][0]["confidence"] == pytest.approx(0.7)


def test_a_test_row_that_no_choice_answers_is_named(folder: Path) -> None:
    test = choice_test(folder, "Yes", "No")
    test.check()
    rows = [{"question": "Who?", "answer": "yes"}, {"question": "Who?"}]
    with pytest.raises(UserError) as error:
        dataclasses.replace(test, rows=rows, path=Path("test.jsonl")).check()
    assert str(error.value).splitlines() == [
        'test.jsonl, row 1: "yes" is none of evaluate.choices. Known: Yes, No.',
        'test.jsonl, row 2: has no "answer".',
    ]
