"""One training on a GPU, of whose memory it may have a part: `python -m tests.benchmarks.gpu_sides SIDE RUN GB STEPS`.

Prints {"peak", "seconds", "tokens", "left_out"}: bytes that torch held at most, seconds of a step (median, the first
two left out), tokens of a step, updates that fp16 left out; or {"out_of_memory"}.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hpcft.data.features import Features
from hpcft.rundir import RunDir
from tests.benchmarks.trainers import rows_of

GIB = 1 << 30
WARM_UP = 2


def main(side: str, run_path: str, gigabytes: str, steps: str) -> None:
    """Train so many steps, or say that the memory does not do."""
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, float(gigabytes) * GIB / whole))
    sides: dict[str, Callable[[RunDir, int], dict[str, float]]] = {"hpcft": hpcft, "trl": trl}
    try:
        found = sides[side](RunDir(Path(run_path)), int(steps))
    except torch.OutOfMemoryError as error:
        found = {"out_of_memory": True}
        print(error, file=sys.stderr)
    print(json.dumps({"peak": torch.cuda.max_memory_allocated(), **found}), flush=True)


def hpcft(run: RunDir, steps: int) -> dict[str, float]:
    """Steps as a job of the run makes them."""
    from hpcft.train.loop import micro_batches
    from hpcft.train.setup import set_up
    from hpcft.train.step import one_step

    scratch = run.path / f"scratch-{os.getpid()}"
    scratch.mkdir()
    training = set_up(run, run.job(1), scratch)
    tokens = 0

    def counted() -> Any:
        nonlocal tokens
        for batch in micro_batches(training):
            tokens += int((batch["mask"] > 0).sum())
            yield batch

    batches, seconds = counted(), []
    for step in range(steps):
        seconds.append(timed(lambda step=step: one_step(training, batches, step)))
        training.position.step = step + 1
    left_out = training.position.left_out
    return {"seconds": statistics.median(seconds[WARM_UP:]), "tokens": tokens / steps, "left_out": left_out}


def trl(run: RunDir, steps: int) -> dict[str, float]:
    """The same work in TRL's SFTTrainer: fp16, gradient checkpointing as in the recipe, fused AdamW."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    seconds: list[float] = []

    class Timing(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    recipe = run.recipe
    train = recipe.train
    assert isinstance(train.micro_batch_size, int)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(recipe.model.path), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    features = Features(run.features / "train")
    arguments = SFTConfig(
        output_dir=str(run.path / f"peer-{os.getpid()}"),
        max_steps=steps,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // train.micro_batch_size,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        fp16=True,
        gradient_checkpointing=train.gradient_checkpointing,
        max_length=recipe.data.max_length,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = rows_of(features).remove_columns(["labels", "attention_mask"])
    SFTTrainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[Timing()]
    ).train()
    each = len(features.tokens) / len(features)
    return {"seconds": statistics.median(seconds[WARM_UP:]), "tokens": each * train.batch_size}


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the GPU has done it."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
