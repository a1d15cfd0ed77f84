"""Measures are what scikit-learn computes of the same answers, and intervals what resampled rows give."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from hpcft.evaluation import metrics

LABELS = ["negative", "neutral", "positive"]


def made(rows: int, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    """Truth, answers that are right more often than not, and the probabilities that they come from."""
    draw = np.random.default_rng(seed)
    wanted = draw.choice(3, rows, p=[0.5, 0.3, 0.2])
    scores = draw.normal(size=(rows, 3)) + 1.5 * np.eye(3)[wanted]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return [LABELS[i] for i in wanted], [LABELS[i] for i in probabilities.argmax(1)], probabilities


def test_every_measure_is_scikit_learns() -> None:
    truth, answers, probabilities = made(400)
    found = metrics.report(LABELS, truth, answers, probabilities)
    assert found["accuracy"] == accuracy_score(truth, answers)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found["confusion"] == confusion_matrix(truth, answers, labels=LABELS).tolist()
    theirs = np.array(precision_recall_fscore_support(truth, answers, labels=LABELS)).T
    ours = [[part[key] for key in ("precision", "recall", "f1", "rows")] for part in found["per_class"]]
    assert np.allclose(ours, theirs)
    assert found["calibration"]["log_loss"] == pytest.approx(log_loss(truth, probabilities, labels=LABELS))
    brier = brier_score_loss(truth, probabilities, labels=LABELS, scale_by_half=False)
    assert found["calibration"]["brier"] == pytest.approx(brier)


def test_what_could_not_be_parsed_is_wrong_and_counted() -> None:
    truth = ["negative", "negative", "negative", "positive"]
    found = metrics.report(LABELS, truth, ["negative", None, "positive", None])
    assert (found["accuracy"], found["unparsed"]) == (0.25, 0.5)
    assert (found["majority"], found["majority_label"]) == (0.75, "negative")
    assert found["confusion"] == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert [part["unparsed"] for part in found["per_class"]] == [1, 0, 1]
    assert found["per_class"][0]["recall"] == pytest.approx(1 / 3)
    # As scikit-learn has it of the labels that occur, an answer that is none being one more that is never right.
    theirs = f1_score(truth, ["negative", "?", "positive", "?"], labels=["negative", "positive"], average="macro")
    assert found["macro_f1"] == pytest.approx(theirs)
    assert "calibration" not in found


def test_intervals_are_those_of_resampled_rows() -> None:
    truth, answers, _ = made(300, seed=1)
    found = metrics.report(LABELS, truth, answers)
    draw, right = np.random.default_rng(5), np.array(truth) == np.array(answers)
    drawn = [draw.integers(0, 300, 300) for _ in range(2000)]
    expected = np.percentile([right[rows].mean() for rows in drawn], (2.5, 97.5))
    assert np.allclose(found["interval"], expected, atol=0.01)
    truth_, answers_ = np.array(truth), np.array(answers)
    scores = [f1_score(truth_[rows], answers_[rows], average="macro") for rows in drawn[:500]]
    assert np.allclose(found["macro_f1_interval"], np.percentile(scores, (2.5, 97.5)), atol=0.015)
    assert metrics.report(LABELS, truth, answers) == found, "the same rows, the same interval"


def test_resamples_need_no_more_memory_where_there_are_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, answers, _ = made(300, seed=1)
    found = metrics.report(LABELS, truth, answers)
    sizes: list[int] = []
    accuracy = metrics._accuracy
    monkeypatch.setattr(metrics, "_accuracy", lambda tables: (sizes.append(tables.size), accuracy(tables))[1])
    monkeypatch.setattr(metrics, "AT_ONCE", 1000)
    assert metrics.report(LABELS, truth, answers) == found
    assert max(sizes) <= 1000 and len(sizes) > 50


def test_a_gain_is_judged_row_by_row() -> None:
    truth = ["positive"] * 100
    before = ["positive"] * 50 + ["negative"] * 50
    same = metrics.gain(truth, before, before)
    assert same == {"gain": 0.0, "interval": [0.0, 0.0]}, "the same answers differ in nothing, however hard the rows"
    better = metrics.gain(truth, ["positive"] * 70 + [None] * 30, before)
    assert better["gain"] == pytest.approx(0.2)
    assert 0.1 < better["interval"][0] < 0.2 < better["interval"][1] < 0.3
    worse = metrics.gain(truth, before, ["positive"] * 70 + ["negative"] * 30)
    assert worse["gain"] == pytest.approx(-0.2) and worse["interval"][1] < 0


def test_calibration_tells_a_braggart_from_an_honest_model() -> None:
    truth = ["a", "b"] * 500  # always answered a, so right half of the time
    for sure, error in ((0.5, 0.0), (0.99, 0.49)):
        found = metrics.calibration(["a", "b"], truth, np.tile([sure, 1 - sure], (1000, 1)))
        assert found["error"] == pytest.approx(error)
        (only,) = found["bins"]
        assert (only["rows"], only["accuracy"], only["confidence"]) == (1000, 0.5, pytest.approx(sure))
        assert only["from"] <= sure <= only["to"]


@pytest.mark.parametrize(
    ("truth", "answers", "words"),
    [
        (["a"], ["c"], "'c' is none of the labels"),
        (["c"], ["a"], "'c' is none of the labels"),
        (["a", "b"], ["a"], "2 rows have 1 answers"),
        ([], [], "there are no rows"),
    ],
)
def test_answers_that_cannot_be_counted_are_refused(truth: list[str], answers: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.report(["a", "b"], truth, answers)
