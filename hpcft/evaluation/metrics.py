"""What answers are worth: accuracy and its likes, from one count of truth against answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

DRAWS = 10_000
"""Resamples of the test rows behind each interval."""
AT_ONCE = 1 << 22
"""Counts of resamples that are in memory together; of a thousand classes one resample has a million."""
BINS = 10
"""Of the calibration, of equal width, as in Guo et al. 2017 (arXiv 1706.04599)."""


def report(
    labels: Sequence[str],
    truth: Sequence[str],
    answers: Sequence[str | None],
    probabilities: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """The measures of one answer for each row, ready for JSON; `confusion[i][j]` counts label i answered as j.

    An answer is a label, or None where none could be read from what the model wrote: that is wrong, and its share is
    `unparsed`. `probabilities` are (rows, labels), each row summing to 1; without them there is no `calibration`.
    An `interval` holds the measure in 95 of 100 resamples of the rows. Raises ValueError if there are no rows, if a
    truth or an answer is none of the labels, or if the lengths differ.

    >>> found = report(["no", "yes"], ["yes", "yes", "no", "no"], ["yes", "no", "no", None])
    >>> found["accuracy"], found["unparsed"], found["majority"], found["confusion"]
    (0.5, 0.25, 0.5, [[1, 0], [1, 1]])
    """
    table = count(labels, truth, answers)
    rows, wanted = int(table.sum()), table.sum(1)
    precision, recall, f1 = (part[0] for part in _by_class(table[None]))
    drawn = [(_accuracy(some), _macro_f1(some)) for some in _resampled(table)]
    accuracies, f1s = (np.concatenate(values) for values in zip(*drawn, strict=True))
    found = {
        "rows": rows,
        "labels": list(labels),
        "accuracy": float(_accuracy(table[None])[0]),
        "interval": _interval(accuracies),
        "majority": float(wanted.max() / rows),
        "majority_label": labels[int(wanted.argmax())],
        "macro_f1": float(_macro_f1(table[None])[0]),
        "macro_f1_interval": _interval(f1s),
        "unparsed": float(table[:, -1].sum() / rows),
        "per_class": [
            {
                "label": label,
                "rows": int(wanted[index]),
                "answered": int(table[:, index].sum()),
                "unparsed": int(table[index, -1]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
            }
            for index, label in enumerate(labels)
        ],
        "confusion": table[:, :-1].tolist(),
    }
    if probabilities is not None:
        found["calibration"] = calibration(labels, truth, np.asarray(probabilities, dtype=np.float64))
    return found


def count(labels: Sequence[str], truth: Sequence[str], answers: Sequence[str | None]) -> Counts:
    """(labels, labels + 1): rows of each truth by their answer; the last column has those without one."""
    if len(truth) != len(answers):
        raise ValueError(f"{len(truth)} rows have {len(answers)} answers")
    if not truth:
        raise ValueError("there are no rows")
    places: dict[str | None, int] = {label: index for index, label in enumerate(labels)}
    if strange := ({*truth} - {*labels}) | ({*answers} - {*labels, None}):
        raise ValueError(f"{sorted(map(str, strange))[0]!r} is none of the labels")
    places[None] = len(labels)
    table = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    np.add.at(table, ([places[label] for label in truth], [places[answer] for answer in answers]), 1)
    return table


def gain(truth: Sequence[str], answers: Sequence[str | None], before: Sequence[str | None]) -> dict[str, Any]:
    """By how much the accuracy has risen over `before`, answers to the same rows, and the interval of that.

    The rows are resampled with both their answers, so that what is hard for both models adds nothing to the interval.
    """
    pairs = np.array([[a == t, b == t] for t, a, b in zip(truth, answers, before, strict=True)], dtype=np.int64)
    now, then = pairs.T
    cells = np.array([np.sum((now == 1) & (then == 0)), np.sum((now == 0) & (then == 1)), np.sum(now == then)])
    drawn = np.random.default_rng(0).multinomial(len(pairs), cells / len(pairs), DRAWS)
    differences = (drawn[:, 0] - drawn[:, 1]) / len(pairs)
    return {"gain": float((cells[0] - cells[1]) / len(pairs)), "interval": _interval(differences)}


def calibration(labels: Sequence[str], truth: Sequence[str], probabilities: Numbers) -> dict[str, Any]:
    """Whether a model is right as often as it is sure: {error, brier, log_loss, bins}.

    `error` is the expected calibration error: how far, in the mean over rows, a bin's confidence is from its accuracy.
    """
    if probabilities.shape != (len(truth), len(labels)):
        raise ValueError(f"probabilities are {probabilities.shape}, and not {(len(truth), len(labels))}")
    places = {label: index for index, label in enumerate(labels)}
    wanted = np.array([places[label] for label in truth])
    sure, right = probabilities.max(1), probabilities.argmax(1) == wanted
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    found, error = [], 0.0
    for index in range(BINS):
        inside = bins == index
        if not inside.any():
            continue
        confidence, accuracy = float(sure[inside].mean()), float(right[inside].mean())
        error += float(inside.mean()) * abs(confidence - accuracy)
        found.append(
            {
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "rows": int(inside.sum()),
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
    exact = np.eye(len(labels))[wanted]
    own = np.maximum(probabilities[np.arange(len(wanted)), wanted], np.finfo(np.float64).tiny)
    return {
        "error": error,
        "brier": float(((probabilities - exact) ** 2).sum(1).mean()),
        "log_loss": float(-np.log(own).mean()),
        "bins": found,
    }


def _resampled(table: Counts) -> Iterator[Counts]:
    """(draws, labels, labels + 1), DRAWS in all: counts of as many rows drawn with replacement. The rows are told apart
    only by their cell, so that drawing cells is drawing rows, without a pile of them."""
    rows, chance = int(table.sum()), np.random.default_rng(0)
    at_once = max(1, AT_ONCE // table.size)
    for first in range(0, DRAWS, at_once):
        drawn = chance.multinomial(rows, table.ravel() / rows, min(at_once, DRAWS - first))
        yield drawn.reshape(-1, *table.shape)


def _interval(values: Numbers) -> list[float]:
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def _accuracy(tables: Counts) -> Numbers:
    """(tables,)"""
    right = np.trace(tables[:, :, :-1], axis1=1, axis2=2)
    return np.asarray(right / tables.sum((1, 2)))


def _by_class(tables: Counts) -> tuple[Numbers, Numbers, Numbers]:
    """Precision, recall and F1, each (tables, labels); 0 where there is nothing to divide by, as in scikit-learn."""
    right = np.diagonal(tables[:, :, :-1], axis1=1, axis2=2).astype(np.float64)
    answered, wanted = tables[:, :, :-1].sum(1), tables.sum(2)
    return (
        right / np.maximum(answered, 1),
        right / np.maximum(wanted, 1),
        2 * right / np.maximum(answered + wanted, 1),
    )


def _macro_f1(tables: Counts) -> Numbers:
    """(tables,): the mean F1 of the labels that occur, as truth or as answer."""
    _, _, f1 = _by_class(tables)
    there = (tables[:, :, :-1].sum(1) + tables.sum(2)) > 0
    return np.asarray((f1 * there).sum(1) / np.maximum(there.sum(1), 1))
