"""Rows to tokens, and which of them are learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hpcft.data.features import Feature
from hpcft.data.rows import Row
from hpcft.errors import UserError
from hpcft.tasks.corpus import Corpus
from hpcft.tasks.instruct import Instruct
from hpcft.tasks.task import Task
from hpcft.template import PromptTemplate
from tests.parts import make_tiny_gpt2

PATH = Path("rows.jsonl")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2"))


def instruct(tokenizer: Any, full: bool = False, max_length: int = 100) -> Instruct:
    return Instruct(PromptTemplate("Q: {{question}}\nA: {{answer}}"), tokenizer, max_length, full)


def learnt(tokenizer: Any, feature: Any) -> str:
    picked = [token for token, trained in zip(feature.tokens, feature.trained, strict=True) if trained]
    return tokenizer.decode(picked)


def features(task: Task, rows: list[Row]) -> list[Feature]:
    return [feature for chunk in task.chunks(rows, PATH) for feature in chunk.features]


def test_only_the_completion_and_its_end_are_learnt(tokenizer: Any) -> None:
    [feature] = features(instruct(tokenizer), [{"question": "Who waits?", "answer": "The queue waits."}])
    assert tokenizer.decode(feature.tokens) == "Q: Who waits?\nA: The queue waits.<|endoftext|>"
    # The space before the first word belongs to its token.
    assert learnt(tokenizer, feature).strip() == "The queue waits.<|endoftext|>"


def test_full_loss_learns_all_of_it(tokenizer: Any) -> None:
    [feature] = features(instruct(tokenizer, full=True), [{"question": "Who?", "answer": "Me."}])
    assert all(feature.trained)


def test_a_row_that_is_cut_learns_no_end(tokenizer: Any) -> None:
    row = {"question": "Who?", "answer": "The queue waits for the checkpoint and the batch."}
    whole = features(instruct(tokenizer), [row])[0]
    length = len(whole.tokens) - 3
    [feature] = features(instruct(tokenizer, max_length=length), [row])
    assert feature.tokens == whole.tokens[:length]
    assert tokenizer.eos_token_id not in feature.tokens


def test_a_completion_that_is_cut_off_entirely_is_an_error_with_its_row(tokenizer: Any) -> None:
    rows = [{"question": "Hi?", "answer": "Yes."}, {"question": "Who waits? " * 20, "answer": "The queue."}]
    length = len(features(instruct(tokenizer), rows[:1])[0].tokens) + 5
    with pytest.raises(UserError) as error:
        list(instruct(tokenizer, max_length=length).chunks(rows, PATH))
    words = str(error.value)
    assert words.startswith("rows.jsonl, row 2: its prompt alone has ")
    assert f"data.max_length = {length} cuts the completion off entirely." in words


def test_a_missing_column_and_an_empty_completion_are_named_together(tokenizer: Any) -> None:
    rows = [{"question": "Hi?"}, {"question": "Hi?", "answer": " "}]
    with pytest.raises(UserError) as error:
        list(instruct(tokenizer).chunks(rows, PATH))
    assert str(error.value).splitlines() == [
        'rows.jsonl, row 1: has no column "answer".',
        'rows.jsonl, row 2: "answer" is empty.',
    ]


def test_a_cell_without_value_is_no_text(tokenizer: Any) -> None:
    rows = [{"question": "Hi?", "answer": None}, {"question": float("nan"), "answer": "Yes."}]
    with pytest.raises(UserError) as error:
        list(instruct(tokenizer).chunks(rows, PATH))
    assert str(error.value).splitlines() == [
        'rows.jsonl, row 1: "answer" has no value.',
        'rows.jsonl, row 2: "question" has no value.',
    ]


def test_braces_in_a_value_are_text(tokenizer: Any) -> None:
    template = PromptTemplate("{{question}} -> {{answer}}")
    assert template.render({"question": "{{answer}}", "answer": "42"}) == ("{{answer}} -> ", "42")


@pytest.mark.parametrize("block", [2, 4, 7, 1000])
def test_blocks_hold_every_token_of_their_document_and_none_of_another(tokenizer: Any, block: int) -> None:
    documents = [{"text": "The queue waits.\n"}, {"text": "A checkpoint."}, {"text": "The batch depends on it."}]
    for row in documents:
        blocks = [list(feature.tokens) for feature in features(Corpus("text", tokenizer, block), [row])]
        whole = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
        if len(whole) % block == 1:
            whole.pop()  # a single last token has nothing to be predicted from
        assert blocks == [whole[first : first + block] for first in range(0, len(whole), block)]
    together = [list(feature.tokens) for feature in features(Corpus("text", tokenizer, block), documents)]
    apart = [features(Corpus("text", tokenizer, block), [row]) for row in documents]
    assert together == [list(feature.tokens) for some in apart for feature in some]
