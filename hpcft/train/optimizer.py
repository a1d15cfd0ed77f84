"""The optimizer, and its learning rate as a function of the step."""

from __future__ import annotations

import torch

from hpcft.recipe import Recipe, Train


def learning_rate(train: Train, step: int, total: int) -> float:
    """The rate of step number `step`, from 0: linearly up over the warm-up, then linearly down to zero at `total`."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    return train.learning_rate * (total - step) / max(1, total - train.warmup_steps)


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
