"""From a run directory to a training that stands at the step where the last job left it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs, release_memory

from hpcft.data.batches import Share
from hpcft.data.features import Features
from hpcft.data.order import RowOrder, TokenOrder
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir
from hpcft.sections import Model
from hpcft.tasks.tokenize import check_tokenizer
from hpcft.train.adapt import frozen_hash, load_adapted, trained_words
from hpcft.train.classmodel import set_padding
from hpcft.train.control import Control
from hpcft.train.labels import find_classes
from hpcft.train.model import (
    LossModel,
    checkpoint_activations,
    load_tokenizer,
    packs_exactly,
    padding_token,
    pin_revision,
)
from hpcft.train.optimizer import make_optimizer
from hpcft.train.phases import Span, expected_phase, lay_out, record_phases
from hpcft.train.progress import Progress, first_progress
from hpcft.train.resume import resume
from hpcft.train.splits import features_of
from hpcft.train.testing import make_test
from hpcft.train.training import Training

WARMUP_PASSES = 2
Prepared = tuple[LossModel, Any, Any, str | None]


def set_up(run: RunDir, job: JobDir, scratch: Path, progress: Progress | None = None) -> Training:
    """A training at the newest sound checkpoint, in the phase that it leads to.

    Raises UserError: data, model or env cannot be used; Stop.
    """
    progress = progress or first_progress(scratch)
    while (training := _set_up(run, job, scratch, progress)) is None:
        release_memory()  # the newest checkpoint is not sound, and the one before is of another phase
    return training


def _set_up(run: RunDir, job: JobDir, scratch: Path, progress: Progress) -> Training | None:
    recipe = run.recipe
    compute_mode(recipe.train.deterministic)
    accelerator = make_accelerator(recipe)
    control = make_control(accelerator, recipe.processes, scratch / "stop")
    progress.lap("processes")
    control.on_look = lambda seconds: progress.note(poll_seconds=seconds)
    if control.rank == 0:
        pin_revision(recipe.model, run.path / "model.json")
    control.wait()
    source = pin_revision(recipe.model, run.path / "model.json")
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, recipe.model.path, ends=not recipe.has_classes)
    recipe = find_classes(run, control)
    # Of all phases: what is wrong with the rows of a later one must not be found out a night after the first has begun.
    train, validation = all_features(run, recipe, tokenizer, control)
    spans = lay_out(recipe, train, validation)
    if control.rank == 0:
        record_phases(run, spans)
    for number, each in enumerate(recipe.each_phase() if not run.saved_steps() else ()):  # else it is done
        if test := make_test(run, each, tokenizer, control, below=recipe.features_folder(number)):
            test.check()
    progress.lap("data")
    span = spans[expected_phase(run, spans, control)]
    whole, recipe = recipe, recipe.phase(span.number)
    model, wrapped, optimizer, frozen = prepare_model(recipe, source, accelerator)
    check_packing(whole, model)
    if frozen and control.rank == 0:
        print(f"hpcft: {trained_words(model)}", flush=True)
    micro = recipe.train.micro_batch_size
    if micro == "auto":
        from hpcft.train.micro import Trial, largest_micro_batch  # what it imports, others need not

        here = recipe.model_copy(update={"model": source})
        micro = largest_micro_batch(here, run, control, Trial(model, accelerator), span.name)
    mine = train[span.number]
    share = make_share(recipe, mine, micro, control, span)
    pad = padding_token(tokenizer)
    set_padding(recipe, model, tokenizer)
    training = Training(
        run, job, recipe, control, progress, accelerator, tokenizer, pad, model, wrapped, optimizer,
        mine, validation[span.number], share, spans[-1].ends, spans, span, frozen,
    )  # fmt: skip
    progress.lap("model")
    warm_up(training)
    progress.lap("warm-up")
    fits = resume(training)
    progress.lap("checkpoint")
    return training if fits else None


def all_features(
    run: RunDir, recipe: Recipe, tokenizer: Any, control: Control
) -> tuple[list[Features], list[Features | None]]:
    """The rows of each phase to learn from, and those to validate with, if it has any."""
    train: list[Features] = []
    validation: list[Features | None] = []
    for number, each in enumerate(recipe.each_phase()):
        below = recipe.features_folder(number)
        train.append(features_of("train", run, each, tokenizer, control, below))
        more = features_of("validation", run, each, tokenizer, control, below) if each.data.has("validation") else None
        validation.append(more)
    return train, validation


def check_packing(recipe: Recipe, model: LossModel) -> None:
    """Raise UserError for a phase that packs rows where this model cannot tell them apart."""
    keys = [recipe.phase_key(number, "train.grouping") for number in range(len(recipe.each_phase()))]
    packed = [key for key, each in zip(keys, recipe.each_phase(), strict=True) if each.train.grouping == "packed"]
    if packed and not packs_exactly(model):
        what = f'{packed[0]} = "packed": in {recipe.model.path} rows that stand in one line would see each other.'
        raise UserError(Fault("recipe", what, 'Write "bucketed".'))


def prepare_model(recipe: Recipe, source: Model, accelerator: Accelerator) -> Prepared:
    """The bare model, the same as it is trained, its optimizer, and the hash of what is frozen. Raises UserError."""
    straight = accelerator.device.type == "cuda" and recipe.train.sharding == "none"
    model = load_adapted(recipe, source, accelerator.device if straight else None)
    frozen = frozen_hash(model)
    if recipe.lora:
        from hpcft.train.lora import hold_in_half  # imports what other runs need not

        hold_in_half(model, recipe.train.precision)
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(model)
    if recipe.train.sharding == "none":
        wrapped, optimizer = accelerator.prepare(model, make_optimizer(recipe, model))
    else:
        from hpcft.train.sharding import shard  # torch's part of it takes a second to import

        wrapped = shard(model, accelerator, recipe.train)
        optimizer = accelerator.prepare(make_optimizer(recipe, model))
    return model, wrapped, optimizer, frozen


def make_share(recipe: Recipe, features: Features, micro_batch_size: int, control: Control, span: Span) -> Share:
    """This process's part of every step of a phase."""
    train, lengths = recipe.train, features.lengths
    longest, bucketed = int(lengths.max()), train.grouping == "bucketed"
    order: RowOrder | TokenOrder
    if train.batch_size is not None:
        order = RowOrder(lengths, train.seed, train.batch_size, bucketed, span.number)
    else:
        steps = int(train.epoch_steps(len(lengths), int(lengths.sum()), longest))
        order = TokenOrder(lengths, train.seed, steps, bucketed, span.number)
    room = max(longest, recipe.data.max_length)
    return Share(order, train.grouping, micro_batch_size, room, control.rank, control.ranks, span.begins)


def compute_mode(deterministic: bool) -> None:
    """If so, make torch choose algorithms that give the same bits each time, and fail where it has none."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def make_accelerator(recipe: Recipe) -> Accelerator:
    """accelerate with the ranks that the supervisor set; gloo on CPUs, nccl on GPUs."""
    buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    copies = AutocastKwargs(cache_enabled=not recipe.train.gradient_checkpointing)  # see blueprint.autocast
    precision = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}[recipe.train.precision]
    if recipe.resources.gpus and not torch.cuda.is_available():
        what = f"resources.gpus = {recipe.resources.gpus}, and torch {torch.__version__} sees no GPU here."
        raise UserError(Fault("recipe", what, "Is it a CPU build? Or write gpus: 0."))
    return Accelerator(cpu=not recipe.resources.gpus, mixed_precision=precision, kwargs_handlers=[buckets, copies])


def make_control(accelerator: Accelerator, processes: int, stop_file: Path) -> Control:
    """The group in which processes agree."""
    ranks = accelerator.num_processes
    if ranks != processes:  # accelerate 1.15 silently makes one process of many where it misreads its environment
        raise RuntimeError(f"accelerate sees {ranks} processes, and {processes} were started")
    group = dist.new_group(backend="gloo") if ranks > 1 else None
    return Control(accelerator.process_index, ranks, stop_file, group)


def warm_up(training: Training) -> None:
    """Let DDP arrange its gradient buckets before any state is loaded.

    It does so after its first backward pass, so without this a resumed job of 3 or more processes would add its
    gradients in another order than the job that was cut (torch 2.13, reducer's _rebuild_buckets).
    """
    if training.control.ranks == 1:
        return
    batch = training.model.example(1, 8, training.pad)
    for _ in range(WARMUP_PASSES):
        inputs = training.model.inputs(batch, training.accelerator.device)
        training.accelerator.backward(training.wrapped(**inputs))
        training.optimizer.zero_grad()
