"""One start up to the end of its first step: `python -m tests.benchmarks.starters SIDE RUN`; prints its seconds.

hpcft goes on from the newest checkpoint of the run, the Trainer from the newest in the run's folder `peer`; where there
is none, at the first row.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

IMPORTING = time.perf_counter()

from hpcft.rundir import RunDir  # noqa: E402


def main(side: str, run_path: str, save_at: str = "0") -> None:
    """Print {"imports", "start"} and leave as soon as a step is done; or first save a checkpoint as of a later step."""
    {"hpcft": hpcft, "trainer": trainer}[side](RunDir(Path(run_path)), int(save_at))


def done(imported: float) -> None:
    """Say how long it took, and leave at once."""
    now = time.perf_counter()
    print(json.dumps({"imports": imported - IMPORTING, "start": now - imported}), flush=True)
    os._exit(0)


def hpcft(run: RunDir, save_at: int) -> None:
    """What a job's worker does up to its first step."""
    from hpcft.train.loop import micro_batches
    from hpcft.train.saving import Saver
    from hpcft.train.setup import set_up
    from hpcft.train.step import one_step

    imported = time.perf_counter()
    scratch = run.path / f"scratch-{os.getpid()}"
    scratch.mkdir()
    training = set_up(run, run.job(1), scratch)
    one_step(training, micro_batches(training), training.position.step)
    if save_at:
        training.position.step = save_at
        Saver(training, None).last()
    done(imported)


def trainer(run: RunDir, save_at: int) -> None:
    """What a script with a Trainer does, over the same rows as a dataset of transformers'."""
    import torch
    import transformers
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer

    imported = time.perf_counter()

    class Leaving(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not save_at:
                done(imported)
            control.should_save = True

        def on_save(self, *_: Any, **__: Any) -> None:
            done(imported)

    recipe = run.recipe
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    tokenizer.pad_token = tokenizer.eos_token
    made = Trainer(
        model=AutoModelForCausalLM.from_pretrained(recipe.model.path, dtype=torch.float32),
        args=peer_arguments(run),
        train_dataset=load_from_disk(str(run.path.parent.parent / "dataset")),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=[Leaving()],
    )
    made.train(resume_from_checkpoint=any((run.path / "peer").glob("checkpoint-*")))


def peer_arguments(run: RunDir) -> Any:
    """The recipe's work in a Trainer's words."""
    from transformers import TrainingArguments

    train = run.recipe.train
    return TrainingArguments(
        output_dir=str(run.path / "peer"),
        use_cpu=True,
        max_steps=train.steps or 0,
        per_device_train_batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
