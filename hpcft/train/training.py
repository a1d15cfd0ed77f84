"""A training: everything that the loop works with, and where in the run it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator

from hpcft.data.batches import Share
from hpcft.data.features import Features
from hpcft.recipe import Recipe
from hpcft.rundir import JobDir, RunDir
from hpcft.train.control import Control
from hpcft.train.model import LossModel
from hpcft.train.optimizer import learning_rate
from hpcft.train.phases import Span
from hpcft.train.progress import Progress


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
    window_tokens: int = 0
    """Tokens read since then, and the places that they took with padding."""
    window_places: int = 0
    evaluated: int = -1
    """Step of the last validation loss."""
    best: float | None = None
    """Lowest validation loss after a step so far."""
    best_step: int = -1
    """When that was."""
    left_out: int = 0
    """Steps whose update was left out, since a number in them was none."""
    left_out_in_a_row: int = 0
    phase: int = 0
    """In which the step lies, or which it ends."""


@dataclass
class Training:
    """All that the loop works with."""

    run: RunDir
    job: JobDir
    recipe: Recipe
    """Of its phase, if it has one."""
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
    """Of all phases."""
    spans: Sequence[Span]
    """Where each phase lies."""
    span: Span
    """That of the phase which is trained."""
    frozen: str | None = None
    """Hash of the weights that no checkpoint holds, since they are not trained; None where all are."""
    position: Position = field(default_factory=Position)
    before_update: Callable[[], None] = lambda: None
    """Called before the weights change: a copy of them may be under way."""

    def learning_rate(self, step: int) -> float:
        """The rate of this step of the run."""
        return learning_rate(self.recipe.train, step - self.span.begins, self.span.ends - self.span.begins)

    def amp(self) -> Any:
        """Mixed precision for a forward pass of the bare model."""
        return self.accelerator.autocast()
