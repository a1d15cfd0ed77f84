"""One process of several that train a run from its newest checkpoint to a step: `python -m tests.train.sharded`.

RUN NUMBER STEP; ranks come from the environment, as a supervisor sets them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpcft.disk import write_json
from hpcft.rundir import RunDir
from hpcft.train.evaluate import validate
from hpcft.train.final import finish
from hpcft.train.loop import micro_batches
from hpcft.train.saving import Saver
from hpcft.train.step import one_step
from hpcft.train.testing import examine, make_test
from tests.train.pieces import begin


def train_to(run: RunDir, number: int, last: int) -> None:
    """The steps that this job does, an evaluation in their midst, and all that it writes."""
    training = begin(run, number)
    assert training.validation is not None
    batches, saver, found = micro_batches(training), Saver(training, None), []
    for step in range(training.position.step, last):
        one_step(training, batches, step)
        training.position.step = step + 1
        found.append(
            validate(training.model, training.validation, 3, training.pad, training.control, training.amp).loss
        )
    saver.last()
    if last == training.total_steps:
        finish(training)
    test = make_test(run, training.recipe, training.tokenizer, training.control)
    assert test is not None
    out, batch = run.evaluation / f"test-{number}.json", training.recipe.evaluate.batch_size
    tested = examine(test, training.model, out, batch, training.control, training.amp)
    if training.control.rank == 0:
        write_json(run.path / f"validation-{number}.json", [*found, tested["loss"]])


if __name__ == "__main__":
    path, number, last = sys.argv[1:]
    train_to(RunDir(Path(path)), int(number), int(last))
    os._exit(0)  # as a worker does
