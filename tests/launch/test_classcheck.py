"""What a submission says of a recipe with labels before anything is queued."""

from __future__ import annotations

import pytest

from tests.desk import Desk


def as_task(desk: Desk, task: str, rows: str) -> None:
    """The desk's recipe for another task, on these rows."""
    desk.change("task: instruct", f"task: {task}")
    desk.change("  template: prompt.md\n", "")
    desk.write("train.jsonl", rows + "\n")


CLASSIFY = '{"text": "good day", "label": "glad"}\n{"text": "oh no", "label": "sad"}'
ENTAIL = '{"first": "it rains", "second": "it is wet", "label": true}\n{"first": "a", "second": "b", "label": false}'
PREFER = '{"response_a": "yes", "response_b": "no", "label": "A"}\n{"response_a": "a", "response_b": "b", "label": "B"}'


@pytest.mark.parametrize(("task", "rows"), [("classify", CLASSIFY), ("entail", ENTAIL), ("prefer", PREFER)])
def test_a_recipe_with_labels_is_taken(desk: Desk, task: str, rows: str) -> None:
    as_task(desk, task, rows)
    desk.accepts()


@pytest.mark.parametrize(
    ("task", "rows", "given", "message"),
    [
        (
            "classify",
            CLASSIFY,
            "train.grouping=packed",
            'train.grouping = "packed": a row of the task classify is read as a whole, and lies in no line. '
            'Write "bucketed".',
        ),
        *(
            ("classify", CLASSIFY, f"data.labels={labels}", "data.labels are no classes. "
             "Write two names or more, all different.")
            for labels in ("[]", "[glad]", "[glad, glad]", "[glad, '']")
        ),
        (
            "prefer",
            PREFER,
            "data.labels=[A, B, Tie, Neither]",
            "data.labels are 4: a verdict is for the first response, for the second, or a tie. "
            "Write two or three, in this order.",
        ),
        (
            "classify",
            CLASSIFY,
            "data.separator=50256",
            "data.separator says nothing to the task classify. It goes with entail. Remove it.",
        ),
        ("entail", ENTAIL, "data.separator=-1", "data.separator = -1 is not known. "
         "Write a whole number from 1 on or a text."),
        (
            "entail",
            ENTAIL,
            "data.pair=with_prompt",
            "data.pair says nothing to the task entail. It goes with prefer. Remove it.",
        ),
        (
            "classify",
            CLASSIFY,
            "data.template=prompt.md",
            "data.template says nothing to the task classify. It goes with instruct. Remove it.",
        ),
        (
            "prefer",
            PREFER,
            "lora={}",
            "lora goes with no head that compares two texts: peft would not know what it belongs to. "
            "Remove it; model.freeze trains a part of the model.",
        ),
        (
            "classify",
            CLASSIFY,
            "evaluate.choices=[glad, sad]",
            "evaluate.choices goes with the task instruct. Remove it.",
        ),
    ],
)  # fmt: skip
def test_what_a_task_with_labels_cannot_use_is_refused(
    desk: Desk, task: str, rows: str, given: str, message: str
) -> None:
    as_task(desk, task, rows)
    assert desk.faults("--set", given) == [f"--set {given.partition('=')[0]}: {message}"]


def test_labels_say_nothing_to_a_task_that_learns_tokens(desk: Desk) -> None:
    what = "data.labels says nothing to the task instruct. It goes with classify and entail and prefer. Remove it."
    assert desk.faults("--set", "data.labels=[a, b]") == [f"--set data.labels: {what}"]


def test_columns_are_looked_for(desk: Desk) -> None:
    as_task(desk, "entail", '{"first": "a", "label": "b"}')
    [fault] = desk.faults()
    assert 'has no column "second"' in fault
    desk.write("train.jsonl", PREFER.replace('"response_b"', '"other"') + "\n")
    desk.change("task: entail", "task: prefer")
    [fault] = desk.faults()
    assert 'has no column "response_b"' in fault
    desk.write("train.jsonl", PREFER + "\n")
    [fault] = desk.faults("--set", "data.pair=with_prompt")
    assert 'has no column "prompt"' in fault


def test_labels_that_are_no_classes_are_refused_before_the_queue(desk: Desk) -> None:
    as_task(desk, "classify", CLASSIFY.replace("sad", "glad"))
    assert desk.faults() == ['train.jsonl: every row has the label "glad". Give rows of two classes or more.']
    fix = "Make them one; if each is a class, name all classes in data.labels."
    desk.write("train.jsonl", CLASSIFY.replace("sad", " Glad") + "\n")
    assert desk.faults() == [f'train.jsonl: the labels " Glad", "glad" differ in case or blanks alone. {fix}']
    desk.accepts("--set", "data.labels=[glad, ' Glad']")


def test_rows_of_other_splits_are_not_blamed_for_labels_that_training_rows_lack(desk: Desk) -> None:
    as_task(desk, "classify", '{"text": "good day", "mood": "glad"}')
    desk.write("test.jsonl", CLASSIFY + "\n")
    [fault] = desk.faults("--set", "data.test=test.jsonl")
    assert fault.startswith('demo.yaml:7: train.jsonl has no column "label". It has "text", "mood". Give its name')


def test_a_model_that_has_no_room_or_no_such_head_is_refused(desk: Desk) -> None:
    as_task(desk, "classify", CLASSIFY)
    desk.write("model/config.json", '{"model_type": "roberta", "max_position_embeddings": 514}')
    desk.accepts("--set", "data.max_length=512")
    what = "data.max_length = 513: the model has 512 positions (max_position_embeddings). Write 512 at most."
    assert desk.faults("--set", "data.max_length=513") == [f"--set data.max_length: {what}"]
    desk.write("model/config.json", '{"model_type": "t5", "is_encoder_decoder": true}')
    what = "model is an encoder with a decoder, which has no head of classes here."
    fix = "Take an encoder (BERT, DeBERTa) or a decoder (GPT-2, Llama)."
    assert desk.faults() == [f"demo.yaml:5: {what} {fix}"]


def test_the_body_of_an_encoder_may_be_frozen_though_it_says_that_embeddings_are_tied(desk: Desk) -> None:
    as_task(desk, "classify", CLASSIFY)
    desk.write("model/config.json", '{"tie_word_embeddings": true, "num_hidden_layers": 6}')
    desk.accepts("--set", "model.freeze=body")
    desk.accepts("--set", "model.freeze=6")
    [fault] = desk.faults("--set", "model.freeze=7")
    assert fault.endswith("the model has 6 layers. Write 6 at most.")
