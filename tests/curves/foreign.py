"""Event files as others leave them, for the tests of `hpcft stitch`: `python -m tests.curves.foreign OUT`.

The imports are made once; each start of a training is a forked process, and those that are cut kill themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

STEPS = 60
KILLED_AT = (34, 47)
"""Steps after which the first two starts of the Trainer are killed; it saves every 20."""


def begin(train: Callable[[], None], code: int = 0) -> None:
    """A start of its own process, which ends with this code, or -9 of its own hand."""
    child = os.fork()
    if child == 0:
        train()
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code


class Kill(TrainerCallback):
    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def trainer(out: Path, kill_at: int | None, resume: bool, *, evaluate: bool = False) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=64, n_positions=16))
    rows = [{"input_ids": [n % 64] * 8, "labels": [n % 64] * 8} for n in range(64)]
    arguments = TrainingArguments(
        str(out), max_steps=STEPS, save_steps=20, logging_steps=5, eval_strategy="steps", eval_steps=12,
        per_device_train_batch_size=2, report_to="tensorboard", use_cpu=True, disable_tqdm=True, seed=0,
    )  # fmt: skip
    made = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=[Kill(kill_at)])
    made.train(resume_from_checkpoint=resume or None)
    if evaluate:
        made.evaluate()


def plain(folder: Path, first: int, last: int, start: int, purge: int | None = None, **more: Any) -> None:
    """A loop around torch's SummaryWriter that logs every step, and a validation loss every 50; value = start."""
    writer = SummaryWriter(str(folder), purge_step=purge, **more)
    writer.add_text("config", "the same at every start", 0)
    for step in range(first, last + 1):
        writer.add_scalar("loss", start, step)
        if step % 50 == 0:
            writer.add_scalar("val", start, step)
    writer.close()


def accelerated(folder: Path, first: int, last: int) -> None:
    """accelerate's own tracker: its hyperparameters lie in a folder below its curve's."""
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(folder), cpu=True)
    accelerator.init_trackers("mine", config={"learning_rate": 0.1})
    for step in range(first, last + 1):
        accelerator.log({"loss": 1 / step}, step=step)
    accelerator.end_training()


def lightning(folder: Path, first: int, last: int, start: int) -> None:
    """The layout of Lightning 2.6's TensorBoardLogger, written by the SummaryWriter that it uses: a folder version_N a
    start, hp_metric at step 0 of each, `epoch` beside each logged step."""
    writer = SummaryWriter(str(folder))
    writer.add_scalar("hp_metric", -1, 0)
    for step in range(first, last + 1, 10):
        writer.add_scalar("train_loss", start, step)
        writer.add_scalar("epoch", step // 50, step)
    writer.close()
    (folder / "hparams.yaml").write_text("{}\n")


def main(out: Path) -> None:
    """Every folder of the tests, in one process with the heavy imports."""
    os.chdir(out)
    begin(lambda: trainer(out / "trainer", KILLED_AT[0], False), -9)
    time.sleep(1.1)  # the folder's name has the second in it
    begin(lambda: trainer(out / "trainer", KILLED_AT[1], True), -9)
    time.sleep(1.1)
    begin(lambda: trainer(out / "trainer", None, True, evaluate=True))
    for name, purge in (("plain", None), ("purged", 201)):
        begin(lambda name=name: plain(out / name, 1, 234, 1))  # type: ignore[misc]
        begin(lambda name=name, purge=purge: plain(out / name, 201, 400, 2, purge))  # type: ignore[misc]
    for first, last in ((1, 30), (21, 40)):
        begin(lambda first=first, last=last: accelerated(out / "accelerate", first, last))  # type: ignore[misc]
    for version, (first, last) in enumerate(((9, 239), (209, 409))):
        folder = out / "lightning_logs" / f"version_{version}"
        begin(lambda folder=folder, a=first, b=last, v=version: lightning(folder, a, b, v))  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
