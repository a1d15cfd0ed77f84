"""The label in what a model writes."""

from __future__ import annotations

import pytest

from hpcft.evaluation.labels import parse_label

MOODS = ("positive", "negative", "very positive", "neutral")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ("**NEGATIVE**", "negative"),
        ("The mood is very\n positive, not negative", "very positive"),
        ("neutral or positive", "neutral"),
        ("positively", None),
        ("nonneutral_", None),
        ("", None),
        ("I cannot say", None),
    ],
)
def test_the_label_that_stands_first_as_words_of_its_own_is_the_answer(text: str, label: str | None) -> None:
    assert parse_label(text, MOODS) == label


def test_labels_are_found_whatever_they_are_made_of() -> None:
    assert parse_label("a tie, I think: Tie", ("A", "B", "Tie")) == "Tie"
    assert parse_label("It is A.", ("A", "B", "Tie")) == "A"
    assert parse_label("a b", ("A", "B")) is None, "an article is no label"
    assert parse_label("rated +1!", ("+1", "-1", "1")) == "+1"
    assert parse_label(" yes", (" Yes", " No")) == " Yes"
    assert parse_label("POZİTİF, posıtive", ("pozitif", "positive")) == "pozitif", "no letter has one case alone"
    assert parse_label("(c++)", ("c", "c++")) == "c++"
