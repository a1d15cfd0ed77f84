"""What is logged of each step: points of the curve, and the numbers that `hpcft status` shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hpcft.curves.writer import CurveWriter
from hpcft.data.batches import Batch
from hpcft.train import flops
from hpcft.train.evaluate import Validation
from hpcft.train.step import StepResult
from hpcft.train.training import Training


@dataclass
class Meter:
    """This job's part of the time since the last point: speeds need not be the same whatever cut the run."""

    seconds: float = 0.0
    waited: float = 0.0
    """Of these, for the next micro-batch."""
    tokens: int = 0
    """Read by all processes, without padding."""
    targets: int = 0
    flops: float = 0.0


@dataclass
class Log:
    """The log of a job. What is a loss or a count is the same whatever cut the run; its window is in the Position."""

    training: Training
    curve: CurveWriter | None
    meter: Meter = field(default_factory=Meter)
    step_waited: float = 0.0
    flops: flops.Flops | None = None
    peak: float | None = None

    def __post_init__(self) -> None:
        accelerator = self.training.accelerator
        if accelerator.device.type == "cuda":
            name = torch.cuda.get_device_name(accelerator.device)
            self.peak = flops.peak(name, self.training.recipe.train.precision)
        self.flops = flops.count(self.training.model.model, classes=self.training.recipe.has_classes)

    def batches(self, source: Iterator[Batch]) -> Iterator[Batch]:
        """The same micro-batches; how long each was waited for is noted."""
        while True:
            started = time.monotonic()
            batch = next(source, None)
            self.step_waited += time.monotonic() - started
            if batch is None:
                return
            yield batch

    def step(self, result: StepResult, seconds: float) -> None:
        """Count a step that is done, which took so long, and write a point where one is due.

        On a GPU the seconds are true because the loss, which the step ends by reading, waits for it.
        """
        training, position, meter = self.training, self.training.position, self.meter
        step = position.step - 1
        tokens, places = training.share.padding(step)
        meter.seconds += seconds
        meter.waited += self.step_waited
        meter.tokens += tokens
        meter.targets += result.targets
        if self.flops:
            pairs = training.train.pairs(training.share.step_rows(step))
            meter.flops += self.flops.of(tokens, result.targets, pairs)
        position.window_tokens += tokens
        position.window_places += places
        self.step_waited = 0.0
        loss = result.loss / result.targets
        facts = {"last_step": position.step, "loss": loss, "left_out": position.left_out}
        training.progress.note(**facts, **self._speeds())
        training.progress.print_line(position.step, training.total_steps)
        if position.step % training.recipe.train.log_every == 0 or position.step == training.span.ends:
            self._point(result)

    def _speeds(self) -> dict[str, float]:
        """Since the last point: what `status` shows."""
        meter, position = self.meter, self.training.position
        found = {
            "tokens_per_second": meter.tokens / meter.seconds,
            "trained_tokens_per_second": meter.targets / meter.seconds,
            "padding_share": 1 - position.window_tokens / max(1, position.window_places),
        }
        if self.peak and self.flops:
            found["mfu"] = meter.flops / (meter.seconds * self.training.control.ranks * self.peak)
        if self.training.accelerator.device.type == "cuda":
            found["gpu_memory_peak"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def _point(self, result: StepResult) -> None:
        training, position, meter, speeds = self.training, self.training.position, self.meter, self._speeds()
        if curve := self.curve:
            step = position.step
            if position.window_targets:
                curve.scalar("train/loss", position.window_loss / position.window_targets, step)
            curve.scalar("train/learning_rate", training.learning_rate(step - 1), step)
            if training.span.name:
                curve.scalar("train/phase", training.span.number + 1, step)
            curve.scalar("train/gradient_norm", result.norm, step)
            curve.scalar("train/padding_share", speeds.pop("padding_share"), step)
            curve.scalar("train/steps_left_out", position.left_out, step)
            if result.scale is not None:
                curve.scalar("train/loss_scale", result.scale, step)
            for name, value in speeds.items():
                curve.scalar(f"speed/{name}", value, step)
            curve.scalar("seconds/data", meter.waited, step)
            curve.scalar("seconds/compute", meter.seconds - meter.waited, step)
        position.window_loss, position.window_targets = 0.0, 0
        position.window_tokens, position.window_places = 0, 0
        self.meter = Meter()

    def validation(self, found: Validation, seconds: float) -> None:
        """A validation loss, with its perplexity or what the answers are worth, and the seconds that it took."""
        if self.curve:
            step = self.training.position.step
            self.curve.scalar("validation/loss", found.loss, step)
            if not self.training.recipe.has_classes:
                self.curve.scalar("validation/perplexity", perplexity(found.loss), step)
            for name, score in found.scores.items():
                self.curve.scalar(f"validation/{name}", score, step)
            self.curve.scalar("seconds/evaluation", seconds, step)

    def tested(self, report: Mapping[str, Any]) -> None:
        """What a test on held-out rows came to, and the seconds that it took."""
        if self.curve:
            step = self.training.position.step
            for measure in ("accuracy", "macro_f1", "unparsed", "loss", "perplexity"):
                if measure in report:
                    self.curve.scalar(f"test/{measure}", report[measure], step)
            self.curve.scalar("seconds/test", report["seconds"], step)


def perplexity(loss: float) -> float:
    """e to the loss of a token in nats; infinity where that is too large to write down.

    >>> round(perplexity(2.0), 3)
    7.389
    """
    return math.exp(loss) if loss < 700 else math.inf
