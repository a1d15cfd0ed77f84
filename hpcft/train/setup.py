"""From a run directory to a training that stands at the step where the last job left it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import torch.distributed as dist
import transformers
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from hpcft.data.batches import Order, Share
from hpcft.data.features import Features, store_features, stored_features
from hpcft.data.rows import read_rows
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir, write_json
from hpcft.tasks.task import make_task
from hpcft.tasks.tokenize import check_tokenizer
from hpcft.train import checkpoint
from hpcft.train.control import Control, Stop
from hpcft.train.evaluate import choice_test
from hpcft.train.model import LossModel, load_model, load_tokenizer, padding_token, pin_revision
from hpcft.train.progress import Progress
from hpcft.train.randomness import set_randomness

WARMUP_PASSES = 2
PROBE_CAUTION = 2.0
"""A small file is written faster than a large one."""
PROBE_BYTES = 128 << 20
"""Written once at the start to learn how long a save will take."""


@dataclass
class Position:
    """Where training is: everything of a checkpoint that is not a tensor."""

    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Targets learnt from, over all processes."""
    window_loss: float = 0.0
    """Summed loss since the last point of the curve; saved, or the first point after a resume would differ."""
    window_targets: int = 0
    evaluated: int = -1
    """Step of the last validation loss."""


@dataclass
class Training:
    """All that the loop works with."""

    run: RunDir
    job: JobDir
    recipe: Recipe
    control: Control
    progress: Progress
    accelerator: Accelerator
    tokenizer: Any
    pad: int
    model: LossModel
    """The bare model: what is saved, and what evaluates."""
    wrapped: Any
    """The same, as accelerate wraps it for training."""
    optimizer: Any
    train: Features
    validation: Features | None
    share: Share
    total_steps: int
    position: Position = field(default_factory=Position)

    def amp(self) -> Any:
        """Mixed precision for a forward pass of the bare model."""
        return self.accelerator.autocast()


def set_up(run: RunDir, job: JobDir, scratch: Path) -> Training:
    """A training at the newest sound checkpoint. Raises UserError: data, model or env cannot be used; Stop."""
    recipe = run.recipe
    deterministic_mode()
    accelerator = make_accelerator(recipe)
    control = make_control(accelerator, recipe.processes, scratch / "stop")
    progress = Progress(scratch / "progress.json", control.rank == 0)
    progress.say(phase="start")
    control.on_look = lambda seconds: progress.note(poll_seconds=seconds)
    if control.rank == 0:
        pin_revision(recipe.model, run.path / "model.json")
    control.wait()
    source = pin_revision(recipe.model, run.path / "model.json")
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, recipe.model.path)
    train = features_of("train", run, recipe, tokenizer, control)
    validation = features_of("validation", run, recipe, tokenizer, control) if recipe.data.validation else None
    order = Order(recipe.train.seed, len(train))
    rows = recipe.train
    share = Share(order, rows.batch_size, rows.micro_batch_size, control.rank, control.ranks)
    total = rows.steps or max(1, round((rows.epochs or 0) * len(train) / rows.batch_size))
    if recipe.train.warmup_steps >= total:
        what = f"train.warmup_steps = {recipe.train.warmup_steps} leaves none of the {total} steps to fall."
        raise UserError(Fault("recipe", what, "Write less, or more epochs."))
    if test := choice_test(recipe, tokenizer):
        test.check()
    set_randomness(recipe.train.seed, "model")
    model = load_model(source)
    optimizer = make_optimizer(recipe, model)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    pad = padding_token(tokenizer)
    training = Training(
        run, job, recipe, control, progress, accelerator, tokenizer, pad,
        model, wrapped, optimizer, train, validation, share, total,
    )  # fmt: skip
    warm_up(training)
    resume(training)
    return training


def deterministic_mode() -> None:
    """Make torch choose algorithms that give the same bits each time, and fail where it has none."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def make_accelerator(recipe: Recipe) -> Accelerator:
    """accelerate with the ranks that the supervisor set; gloo on CPUs, nccl on GPUs."""
    kwargs = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    precision = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}[recipe.train.precision]
    if recipe.resources.gpus and not torch.cuda.is_available():
        what = f"resources.gpus = {recipe.resources.gpus}, and torch {torch.__version__} sees no GPU here."
        raise UserError(Fault("recipe", what, "Is it a CPU build? Or write gpus: 0."))
    return Accelerator(cpu=not recipe.resources.gpus, mixed_precision=precision, kwargs_handlers=[kwargs])


def make_control(accelerator: Accelerator, processes: int, stop_file: Path) -> Control:
    """The group in which processes agree."""
    ranks = accelerator.num_processes
    if ranks != processes:  # accelerate 1.15 silently makes one process of many where it misreads its environment
        raise RuntimeError(f"accelerate sees {ranks} processes, and {processes} were started")
    group = dist.new_group(backend="gloo") if ranks > 1 else None
    return Control(accelerator.process_index, ranks, stop_file, group)


def features_of(split: str, run: RunDir, recipe: Recipe, tokenizer: Any, control: Control) -> Features:
    """The features of a split, made by rank 0 in the first job. Raises UserError on every process; Stop."""
    folder = run.features / split
    if control.rank == 0 and stored_features(folder) is None:
        try:
            rows = read_rows(path := Path(getattr(recipe.data, split)))
            chunks = make_task(recipe, tokenizer).chunks(rows, path)
            store_features(folder, chunks, control.poll)
        except UserError:
            control.share(1)  # what poll says to the others: leave
            raise
    if control.rank == 0:
        control.share(2)
        return Features(folder)
    while (answer := control.share(0)) != 2:
        if answer == 1:
            raise Stop
    return Features(folder)


def make_optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW; weight decay for matrices only."""
    train = recipe.train
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        fused=True,
    )


def warm_up(training: Training) -> None:
    """Let DDP arrange its gradient buckets before any state is loaded.

    It does so after its first backward pass, so without this a resumed job of 3 or more processes would add its
    gradients in another order than the job that was cut (torch 2.13, reducer's _rebuild_buckets).
    """
    if training.control.ranks == 1:
        return
    device = training.accelerator.device
    tokens = torch.full((1, 8), training.pad, device=device)
    marks = torch.ones((1, 8), dtype=torch.bool, device=device)
    for _ in range(WARMUP_PASSES):
        training.accelerator.backward(training.wrapped(tokens, torch.ones_like(tokens), marks))
        training.optimizer.zero_grad()


def resume(training: Training) -> None:
    """Load the newest sound checkpoint, if there is one, and write down where training goes on and how exactly."""
    control, run = training.control, training.run
    control.wait()
    found, problems = checkpoint.newest_valid(run) if control.rank == 0 else (None, [])
    step = control.share(found.step if found else -1)
    if control.rank > 0 and step >= 0:
        found = checkpoint.read(run, step)
    prints = fingerprint(training)
    exactness = "bit-exact"
    changes: list[str] = []
    if found:
        exactness, changes = compare(found.state["fingerprint"], prints)
        if exactness == "refused":
            fix = "Put it back as it was, or submit a new run."
            raise UserError(Fault(str(run.path), f"cannot go on exactly: {'; '.join(changes)}.", fix))
        checkpoint.load_into(found, training.model, training.optimizer.optimizer)
        if training.accelerator.scaler is not None and found.state["scaler"]:  # none before a change to fp16
            training.accelerator.scaler.load_state_dict(found.state["scaler"])
        training.position = Position(**found.state["position"])
    if control.rank == 0:
        for problem in problems:
            print(f"hpcft: passed over {problem}", flush=True)
        record = {
            "step": training.position.step,
            "total_steps": training.total_steps,
            "exactness": exactness,
            "changes": changes,
            "passed_over": problems,
            "time": time.time(),
        }
        write_json(training.job.path / "resumed.json", record)
        words = f"goes on at step {training.position.step}" if found else "begins at step 0"
        print(f"hpcft: {words} of {training.total_steps}, {exactness} {'; '.join(changes)}".strip(), flush=True)


REFUSED_CHANGES = ("data", "seed", "batch_size", "total_steps", "task")
"""What must not change between jobs: rows would be skipped or repeated, or the curve would mean another thing."""


LEARNING = ("learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "epsilon", "clip_norm")
"""What the user may change on purpose; the log says from which step on it is so."""


def fingerprint(training: Training) -> dict[str, Any]:
    """All on which the bits of a step depend."""
    train = training.recipe.train
    cuda = training.accelerator.device.type == "cuda"
    return {
        "data": training.train.fingerprint,
        "task": training.recipe.task,
        "seed": train.seed,
        "batch_size": train.batch_size,
        "micro_batch_size": train.micro_batch_size,
        "total_steps": training.total_steps,
        "processes": training.control.ranks,
        "threads": torch.get_num_threads(),
        "precision": train.precision,
        **{key: getattr(train, key) for key in LEARNING},
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if cuda else _cpu_name(),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def compare(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, list[str]]:
    """`bit-exact`, `sample-exact` or `refused`, and what has changed, in words."""
    changed = [key for key in now if before.get(key) != now[key]]
    words = [f"{key} {before.get(key)} -> {now[key]}" for key in changed]
    if any(key in REFUSED_CHANGES for key in changed):
        return "refused", words
    return ("sample-exact" if changed else "bit-exact"), words


def measure_save(training: Training) -> float:
    """Seconds that a save will take: as long as the last one, else from its size and a small file on the same disk."""
    for job in reversed(training.run.jobs()):
        if last := (job.ended or {}).get("save_seconds"):
            return float(last)
    size = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values()) * 3
    training.run.checkpoints.mkdir(exist_ok=True, mode=0o700)
    free = shutil.disk_usage(training.run.path).free
    if free < size:
        print(f"hpcft: a checkpoint needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free", flush=True)
    probe, block = training.run.checkpoints / ".probe", os.urandom(1 << 20)
    blocks = max(1, min(PROBE_BYTES, size) >> 20)
    started = time.monotonic()
    with probe.open("w+b") as file:
        for _ in range(blocks):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        hashlib.file_digest(file, "sha256")
    seconds: float = (time.monotonic() - started) * size / (blocks << 20)
    probe.unlink()
    return PROBE_CAUTION * seconds
