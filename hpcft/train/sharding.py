"""Sharding: weights, gradients and moments shared among the processes (FSDP), in layers."""

from __future__ import annotations

from typing import Any

from torch import nn


def layer_list(model: Any) -> nn.ModuleList:
    """The layers of a model of transformers, lowest first: its largest list of modules."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda part: sum(p.numel() for p in part.parameters()), default=nn.ModuleList())
