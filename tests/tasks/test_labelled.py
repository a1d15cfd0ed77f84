"""Rows with labels to tokens: against rows written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hpcft.data.batches import Collator
from hpcft.data.features import Feature
from hpcft.data.preparation import prepare
from hpcft.data.rows import Row
from hpcft.errors import UserError
from hpcft.recipe import Recipe
from hpcft.tasks.frame import fit
from hpcft.tasks.labelled import in_order, labels_in
from hpcft.tasks.task import Task, make_task

PATH = Path("rows.jsonl")
WORDS = {"the": 4, "queue": 5, "waits": 6, "a": 7, "node": 8, "runs": 9}
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
END = {"<|endoftext|>": 50256}


def tokenizer_of(kind: str) -> Any:
    """A word is a token. Of BERT's kind, of RoBERTa's, or of GPT-2's, whose end of text is 50256."""
    special = END if kind == "gpt2" else SPECIAL
    made = Tokenizer(models.WordLevel({**special, **WORDS}, unk_token=next(iter(special))))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(list(special))
    if kind == "bert":
        made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if kind == "roberta":
        made.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    if kind == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    told = ["input_ids", "token_type_ids", "attention_mask"] if kind == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=told, **names)


def task_of(kind: str, task: str, **data: object) -> Task:
    made = {"train": "rows.jsonl", "labels": ["no", "yes"], "max_length": 10, **data}
    values = {"name": "a", "task": task, "model": {"path": "m"}, "data": made}
    if made["labels"] is None:
        del made["labels"]
    return make_task(Recipe.model_validate(values, strict=False), tokenizer_of(kind))


def features(task: Task, rows: list[Row]) -> list[Feature]:
    return [feature for chunk in task.chunks(rows, PATH) for feature in chunk.features]


def batch_of(task: Task, rows: list[Row], folder: Path, pad: int) -> dict[str, list[Any]]:
    """All rows as they reach the model."""
    made = prepare(folder / "train", "rows", lambda done: task.chunks(rows, PATH), lambda: None)
    assert made.targets.tolist() == [1] * len(rows), "a row is one target, whatever its length"
    batch = Collator(made, pad)([[row] for row in range(len(rows))])
    assert all(tensor.dtype == torch.long for tensor in batch.values())
    return {name: tensor.tolist() for name, tensor in batch.items()}


TEXTS: list[Row] = [{"text": "the queue waits", "label": "yes"}, {"text": "a node", "label": "no", "id": 7}]
PAIRS: list[Row] = [
    {"first": "the queue waits", "second": "a node", "label": True},
    {"first": "a", "second": "node runs", "label": False},
]
RESPONSES: list[Row] = [
    {"prompt": "the", "response_a": "queue waits", "response_b": "a", "label": "B"},
    {"prompt": "node runs", "response_a": "a", "response_b": "the node runs", "label": "Tie"},
]


def test_a_text_of_an_encoder_stands_between_its_special_tokens(tmp_path: Path) -> None:
    assert batch_of(task_of("bert", "classify"), TEXTS, tmp_path, 0) == {
        "tokens": [[2, 4, 5, 6, 3], [2, 7, 8, 3, 0]],
        "mask": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
        "labels": [1, 0],
    }


def test_a_text_of_a_decoder_stands_alone(tmp_path: Path) -> None:
    assert batch_of(task_of("gpt2", "classify"), TEXTS, tmp_path, 50256) == {
        "tokens": [[4, 5, 6], [7, 8, 50256]],
        "mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [1, 0],
    }


def test_two_texts_of_an_encoder_have_token_types(tmp_path: Path) -> None:
    assert batch_of(task_of("bert", "entail", labels=["false", "true"]), PAIRS, tmp_path, 0) == {
        "tokens": [[2, 4, 5, 6, 3, 7, 8, 3], [2, 7, 3, 8, 9, 3, 0, 0]],
        "mask": [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]],
        "segments": [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]],
        "labels": [1, 0],
    }
    found = batch_of(task_of("roberta", "entail", labels=["false", "true"]), PAIRS, tmp_path / "roberta", 0)
    assert found["tokens"] == [[2, 4, 5, 6, 3, 3, 7, 8, 3], [2, 7, 3, 3, 8, 9, 3, 0, 0]]
    assert "segments" not in found, "its two separators tell the texts apart"


@pytest.mark.parametrize("separator", [None, 50256, "<|endoftext|>"])
def test_a_decoder_attends_to_the_separator_and_not_to_padding_of_the_same_token(
    tmp_path: Path, separator: int | str | None
) -> None:
    task = task_of("gpt2", "entail", labels=["false", "true"], separator=separator)
    assert batch_of(task, PAIRS, tmp_path, 50256) == {
        "tokens": [[4, 5, 6, 50256, 7, 8], [7, 50256, 8, 9, 50256, 50256]],
        "mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]],
        "labels": [1, 0],
    }


def test_a_separator_of_the_recipes_joins_two_texts_to_one(tmp_path: Path) -> None:
    found = batch_of(task_of("bert", "entail", labels=["false", "true"], separator="runs"), PAIRS, tmp_path, 0)
    assert found["tokens"] == [[2, 4, 5, 6, 9, 7, 8, 3], [2, 7, 9, 8, 9, 3, 0, 0]]
    assert "segments" not in found
    with pytest.raises(UserError) as error:
        task_of("gpt2", "entail", separator=50257)
    what = "data.separator = 50257: the tokenizer has no token of this number."
    assert str(error.value) == f"recipe: {what} Write one that it has, or a text in quotes."


def test_responses_read_apart_come_as_all_first_ones_and_all_second_ones(tmp_path: Path) -> None:
    assert batch_of(task_of("bert", "prefer", labels=None), RESPONSES, tmp_path, 0) == {
        "tokens": [[2, 5, 6, 3, 0], [2, 7, 3, 0, 0], [2, 7, 3, 0, 0], [2, 4, 8, 9, 3]],
        "mask": [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "labels": [1, 2],
    }


def test_each_response_may_have_the_prompt_before_it(tmp_path: Path) -> None:
    assert batch_of(task_of("bert", "prefer", labels=None, pair="with_prompt"), RESPONSES, tmp_path, 0) == {
        "tokens": [
            [2, 4, 3, 5, 6, 3, 0, 0],
            [2, 8, 9, 3, 7, 3, 0, 0],
            [2, 4, 3, 7, 3, 0, 0, 0],
            [2, 8, 9, 3, 4, 8, 9, 3],
        ],
        "mask": [
            [1, 1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1, 1, 1, 1],
        ],
        "segments": [
            [0, 0, 0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 1, 1, 0, 0],
            [0, 0, 0, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 1, 1, 1],
        ],
        "labels": [1, 2],
    }


def test_an_empty_micro_batch_has_no_class(tmp_path: Path) -> None:
    task = task_of("bert", "prefer", labels=None, pair="with_prompt")
    made = prepare(tmp_path / "train", "rows", lambda done: task.chunks(RESPONSES, PATH), lambda: None)
    found = {name: tensor.tolist() for name, tensor in Collator(made, 0)([]).items()}
    twice = [[0, 0], [0, 0]]
    assert found == {"tokens": twice, "mask": [[1, 1], [1, 1]], "segments": twice, "labels": [-100]}


def test_of_what_is_too_long_both_ends_stay() -> None:
    assert fit([[1, 2, 3, 4, 5]], 5) == [[1, 2, 3, 4, 5]]
    assert fit([[1, 2, 3, 4, 5]], 4) == [[1, 2, 4, 5]]
    assert fit([[1, 2, 3, 4, 5]], 3) == [[1, 2, 5]]
    assert fit([[1, 2], [3, 4]], 4) == [[1, 2], [3, 4]]
    assert fit([[1, 2], [3, 4, 5, 6]], 4) == [[1, 2], [3, 6]]
    assert fit([[1, 2, 3], [4, 5, 6, 7]], 5) == [[1, 3], [4, 5, 7]]
    assert fit([[1, 2, 3, 4, 5, 6], [7]], 3) == [[1, 6], [7]]
    [feature] = features(task_of("bert", "classify", max_length=5), [{"text": "the queue waits a node", "label": "no"}])
    assert feature.tokens == [2, 4, 5, 8, 3]
    long: Row = {"prompt": "node", "response_a": "the queue waits", "response_b": "a", "label": "A"}
    [feature] = features(task_of("bert", "prefer", labels=None, pair="with_prompt", max_length=6), [long])
    assert (feature.tokens, feature.first) == ([2, 8, 3, 4, 6, 3, 2, 8, 3, 7, 3], 6), "each response has max_length"


def test_no_room_beside_special_tokens_is_said() -> None:
    with pytest.raises(UserError) as error:
        task_of("roberta", "entail", max_length=5)
    what = "data.max_length = 5: 4 tokens around the texts leave no room for them."
    assert str(error.value) == f"recipe: {what} Write 6 at least."


def test_rows_that_cannot_be_used_are_named_together() -> None:
    rows: list[Row] = [
        {"text": "the", "label": "perhaps"},
        {"text": "the"},
        {"label": "no"},
        {"text": None, "label": "no"},
        {"text": " ", "label": "no"},
        {"text": "the", "label": None},
        {"text": "the", "label": ""},
        {"text": ["the"], "label": "no"},
        {"text": b"the", "label": "no"},
        {"text": "a", "label": "perhaps"},
        {"text": "a", "label": "never"},
    ]
    with pytest.raises(UserError) as error:
        features(task_of("bert", "classify"), rows)
    assert str(error.value).splitlines() == [
        'rows.jsonl, row 1: its label "perhaps" is none of the classes. Likewise at least 2 rows behind it. '
        "Known: no, yes.",
        'rows.jsonl, row 2: has no column "label".',
        'rows.jsonl, row 3: has no column "text".',
        'rows.jsonl, row 4: "text" has no value.',
        'rows.jsonl, row 5: "text" is empty.',
        'rows.jsonl, row 6: "label" has no value.',
        'rows.jsonl, row 7: "label" is empty.',
        'rows.jsonl, row 8: "text" is a list, not text.',
        'rows.jsonl, row 9: "text" is bytes, not text.',
    ]
    with pytest.raises(UserError) as error:
        features(task_of("bert", "prefer", labels=None), [{"response_a": "a", "response_b": "the", "label": "a"}])
    assert str(error.value) == 'rows.jsonl, row 1: its label "a" is none of the classes. Known: A, B, Tie.'


def test_classes_are_found_and_in_order() -> None:
    def found(*labels: object) -> tuple[str, ...]:
        return in_order(labels_in(({"label": label} for label in labels), PATH), PATH)

    assert found("glad", "sad", "angry", "sad") == ("angry", "glad", "sad")
    assert found(10, 9, "2", 9.0) == ("2", "9", "10")
    assert found(True, False) == ("false", "true")
    for labels, words in {
        ("x", "x"): 'rows.jsonl: every row has the label "x". Give rows of two classes or more.',
        ("x", None): 'rows.jsonl, row 2: has no "label".',
        tuple(range(1001)): 'rows.jsonl: "label" has more than 1000 different values. Is it the column of the class?',
    }.items():
        with pytest.raises(UserError) as error:
            found(*labels)
        assert str(error.value) == words
