"""The optimizer, and its learning rate as a function of the step."""

from __future__ import annotations

from typing import Any

import torch

from hpcft.recipe import Recipe
from hpcft.sections import Train


def learning_rate(train: Train, step: int, total: int) -> float:
    """The rate of step number `step`, from 0: linearly up over the warm-up, then linearly down to zero at `total`."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    return train.learning_rate * (total - step) / max(1, total - train.warmup_steps)


def make_optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW, or the one of bitsandbytes whose moments have 8 bits (arXiv 2110.02861); weight decay for matrices only.

    Of a tensor with fewer than 4096 elements the latter keeps moments in fp32 too.
    """
    train = recipe.train
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    learning: dict[str, Any] = {"lr": train.learning_rate, "betas": (train.beta1, train.beta2), "eps": train.epsilon}
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, **learning, fused=True)
    from bitsandbytes.optim import AdamW8bit  # an import of seconds

    eight_bit: torch.optim.Optimizer = AdamW8bit(groups, **learning)
    return eight_bit
