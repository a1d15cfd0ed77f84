"""Trainers that make a step in each turn: `python -m tests.benchmarks.trainers SIDE RUN`.

One step less is made than the recipe says; the turn after it is answered with the loss on the held-out rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from hpcft.data.features import Features
from hpcft.rundir import RunDir
from hpcft.train import loop
from hpcft.train.control import Stop
from hpcft.train.optimizer import learning_rate
from hpcft.train.setup import set_up
from hpcft.train.training import Training
from tests.benchmarks.turns import Turns

IGNORED = -100
"""Labels that transformers leaves out of the loss."""


def main(side: str, run_path: str) -> None:
    """Train in turns, then say the loss on held-out rows."""
    run, turns = RunDir(Path(run_path)), Turns()
    sides: dict[str, Callable[[RunDir, Turns], Any]] = {
        "hpcft": hpcft,
        "bare": bare,
        "trainer": trainer,
        "grouped": grouped,
        "trl": trl,
    }
    model = sides[side](run, turns)
    turns.say(loss=held_out_loss(model, Features(run.features / "validation")))


def hpcft(run: RunDir, turns: Turns) -> Any:
    """The model after hpcft's own loop, which is stopped before its last step."""
    training = our_training(run)
    one_step, micro_batches = loop.one_step, loop.micro_batches

    def counted(training: Training) -> Iterator[Any]:
        for batch in micro_batches(training):
            turns.tokens += int((batch["mask"] > 0).sum())
            yield batch

    def in_turn(training: Training, batches: Iterator[Any], step: int) -> Any:
        turns.next()
        if step == training.total_steps - 1:
            raise Stop
        return one_step(training, batches, step)

    loop.one_step, loop.micro_batches = in_turn, counted
    assert loop.train(training) == "stopped"
    return training.model.inner


def our_training(run: RunDir) -> Training:
    """A training at step 0 in a folder for its reports."""
    scratch = run.path / f"scratch-{os.getpid()}"
    scratch.mkdir()
    return set_up(run, run.job(1), scratch)


def bare(run: RunDir, turns: Turns) -> Any:
    """The model after a loop as short as one can write it, on hpcft's batches and with hpcft's economies.

    These are the projection at targets alone, GPT-2's GELU in its fused form, and no mask for padding on the right:
    what is compared is what all else costs.
    """
    training = our_training(run)
    train, total = training.recipe.train, training.total_steps
    model: Any = AutoModelForCausalLM.from_pretrained(
        training.recipe.model.path, dtype=torch.float32, activation_function="gelu_pytorch_tanh"
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate, weight_decay=0.0, fused=True)
    batches = loop.micro_batches(training)
    turns.next()
    for step in range(total - 1):
        micro_batches = [next(batches) for _ in range(training.share.passes(step))]
        targets = sum(int(batch["trained"].sum()) for batch in micro_batches)
        for batch in micro_batches:
            turns.tokens += int((batch["mask"] > 0).sum())
            places = batch["trained"][:, 1:]
            hidden = model.transformer(input_ids=batch["tokens"], use_cache=False)[0]  # padding is behind, unseen
            logits = model.lm_head(hidden[:, :-1][places])
            loss = F.cross_entropy(logits, batch["tokens"][:, 1:][places], reduction="sum") / targets
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step, total)
        optimizer.step()
        optimizer.zero_grad()
        turns.next()
    return model


class _Turning(transformers.TrainerCallback):
    """A turn for every step of a Trainer: from the end of one to the end of the next, so that all of it counts."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.next()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.next()
        control.should_training_stop = state.global_step == state.max_steps - 1


def grouped(run: RunDir, turns: Turns) -> Any:
    """The same Trainer with batches of its own `group_by_length`, a few from all over the epoch.

    It brings the rows of 50 steps by falling length, so that a short stretch of it would hold long rows alone.
    """
    train = run.recipe.train
    size, lengths = train.batch_size or 0, Features(run.features / "train").lengths.tolist()
    order = list(LengthGroupedSampler(size, lengths=lengths, generator=torch.Generator().manual_seed(train.seed)))
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    some = [batches[number * len(batches) // (train.steps or 1)] for number in range(train.steps or 1)]
    rows = [row for batch in some for row in batch]
    return trainer(run, turns, rows, train_sampling_strategy="sequential")


def trainer(run: RunDir, turns: Turns, only: Sequence[int] | None = None, **more: Any) -> Any:
    """The model after transformers' Trainer, with the collator that pads to the longest row."""
    tokenizer = AutoTokenizer.from_pretrained(run.recipe.model.path)
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)
    model = AutoModelForCausalLM.from_pretrained(run.recipe.model.path, dtype=torch.float32)
    arguments = TrainingArguments(**common_arguments(run), **more)
    rows = rows_of(Features(run.features / "train"))
    made = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows if only is None else rows.select(only),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[_Turning(turns)],
    )
    counting(made, turns).train()
    return model


def trl(run: RunDir, turns: Turns) -> Any:
    """The model after TRL's SFTTrainer, less its defaults that cost time here: bf16 and gradient checkpointing.

    On a CPU its fused head scores every token; with Triton only those with a target (trl 1.16, trainer/utils.py).
    """
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(run.recipe.model.path)
    model = AutoModelForCausalLM.from_pretrained(run.recipe.model.path, dtype=torch.float32)
    completion = run.recipe.data.loss_on == "completion"
    arguments = SFTConfig(
        **common_arguments(run),
        bf16=False,
        gradient_checkpointing=False,
        completion_only_loss=completion,
        max_length=run.recipe.data.max_length,
    )
    rows = rows_of(Features(run.features / "train"))
    rows = rows.map(lambda row: {"completion_mask": [int(label != IGNORED) for label in row["labels"]]})
    made = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.remove_columns(["labels", "attention_mask"]),
        processing_class=tokenizer,
        callbacks=[_Turning(turns)],
    )
    counting(made, turns).train()
    return model


def common_arguments(run: RunDir) -> dict[str, Any]:
    """What a Trainer has to be told to do the run's work: rows, optimizer and schedule; the rest as it comes."""
    train = run.recipe.train
    assert isinstance(train.micro_batch_size, int)
    return {
        "output_dir": str(run.path / f"peer-{os.getpid()}"),
        "use_cpu": True,
        "max_steps": train.steps,
        "per_device_train_batch_size": train.micro_batch_size,
        "gradient_accumulation_steps": train.batch_size // train.micro_batch_size,
        "learning_rate": train.learning_rate,
        "weight_decay": train.weight_decay,
        "lr_scheduler_type": "linear",
        "max_grad_norm": train.clip_norm,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": train.seed,
    }


def rows_of(features: Features) -> Any:
    """hpcft's own features as a dataset of transformers': the same tokens, the same targets."""
    from datasets import Dataset

    rows = []
    for index in range(len(features)):
        tokens, trained = features[index]
        ids = tokens.tolist()
        labels = [token if learnt else IGNORED for token, learnt in zip(ids, trained.tolist(), strict=True)]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(rows)


def counting(made: Any, turns: Turns) -> Any:
    """The same Trainer, which counts tokens as it computes them: its loader is a batch ahead."""
    training_step = made.training_step

    def count(model: Any, inputs: Any, *more: Any) -> Any:
        turns.tokens += int(inputs["attention_mask"].sum())
        return training_step(model, inputs, *more)

    made.training_step = count
    return made


@torch.no_grad()
def held_out_loss(model: Any, features: Features) -> float:
    """Mean loss of a target, as transformers computes it, a row at a time."""
    model.eval()
    total = targets = 0.0
    for index in range(len(features)):
        tokens, trained = (torch.tensor(part.tolist())[None] for part in features[index])
        count = int(trained.sum())
        labels = tokens.masked_fill(~trained, IGNORED)
        total += count * float(model(input_ids=tokens, labels=labels, use_cache=False).loss)
        targets += count
    return total / targets


if __name__ == "__main__":
    main(*sys.argv[1:])
