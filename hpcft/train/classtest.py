"""The test of a model with classes: the likeliest class of each held-out row is its answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcft.data.batches import Collator
from hpcft.data.features import Features
from hpcft.disk import read_json, write_json
from hpcft.evaluation.metrics import report
from hpcft.train.classmodel import ClassModel, PairModel
from hpcft.train.control import Control, Stop
from hpcft.train.evaluate import release

Answers = dict[int, list[list[float]]]
"""By row: the probability of each class, and of two responses once more with them exchanged."""


def put(
    model: ClassModel,
    features: Features,
    labels: Sequence[str],
    out: Path,
    batch: int,
    pad: int,
    control: Control,
    amp: Any,
) -> dict[str, Any]:
    """The report of a test, also written to `out`. What a stop interrupts is kept beside it and gone on from.

    Which rows meet in a pass does not depend on where it was cut, or on the number of processes, so neither does a bit
    of the answers. Raises Stop.
    """
    if (done := read_json(out)) is not None:
        return done
    part = out.with_suffix(".part.json")
    answers: Answers = {int(row): found for row, found in (read_json(part) or {}).items()}
    out.parent.mkdir(exist_ok=True, mode=0o700)
    started, known, stopped = time.monotonic(), len(answers), False
    model.eval()
    try:
        _ask(model, features, answers, batch, pad, control, amp)
    except Stop:
        stopped = True
    finally:
        release(model)
        model.train()
    everyone = {row: found for theirs in control.gather(answers) for row, found in theirs.items()}
    told = {} if stopped else {**summary(features, labels, everyone), "seconds": time.monotonic() - started}
    if control.rank == 0 and not stopped:
        write_json(out, told)
        part.unlink(missing_ok=True)
    elif control.rank == 0 and len(everyone) > known:  # else it would look as if this job had got further
        write_json(part, everyone)
    control.wait()
    if stopped:
        raise Stop
    return told


def _ask(
    model: ClassModel, features: Features, answers: Answers, batch: int, pad: int, control: Control, amp: Any
) -> None:
    """Add to `answers` this process's share of those that are missing. Raises Stop."""
    collate, device = Collator(features, pad), next(model.parameters()).device
    rows = np.argsort(features.lengths, kind="stable").tolist()
    groups = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    groups = [group for group in groups if not set(group) <= set(answers)]
    for first in range(0, len(groups), control.ranks):
        control.poll()
        # Who has none left does the last once more: of a sharded model a pass needs every process.
        mine = groups[min(first + control.rank, len(groups) - 1)]
        inputs = model.inputs(collate([[row] for row in mine]), device)
        with torch.no_grad(), amp():
            found = model.both_orders(**inputs) if isinstance(model, PairModel) else (model.probabilities(**inputs),)
        for row, *each in zip(mine, *(some.tolist() for some in found), strict=True):
            answers[row] = each


def summary(features: Features, labels: Sequence[str], answers: Answers) -> dict[str, Any]:
    """What the answers to all rows are worth: see evaluation.metrics.report.

    Of two responses `exchanged` is the share of rows whose verdict is exchanged when the responses are: what a model
    that knows nothing but the place of a response has at 0.
    """
    assert features.labels is not None
    probabilities = np.array([answers[row] for row in range(len(features))])  # (rows, 1 or 2, classes)
    chosen = probabilities.argmax(axis=-1)
    truth = [labels[number] for number in features.labels.tolist()]
    found = report(labels, truth, [labels[number] for number in chosen[:, 0].tolist()], probabilities[:, 0])
    if probabilities.shape[1] == 2:
        other = np.arange(len(labels))
        other[:2] = 1, 0
        found["exchanged"] = float((other[chosen[:, 0]] == chosen[:, 1]).mean())
    return found
