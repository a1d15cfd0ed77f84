"""The arithmetic of a step, and what the card could do at best: the MFU is their ratio (arXiv 2204.02311, B)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

PEAKS: tuple[tuple[str, float, float | None, float], ...] = (
    (r"V100-SXM2-\d+GB(-LS)?", 125.0, None, 15.7),
    (r"V100-PCIE-\d+GB", 112.0, None, 14.0),
    (r"V100S-PCIE-32GB", 130.0, None, 16.4),
    (r"T4", 65.0, None, 8.1),
    (r"A100-(SXM4|PCIE)-\d+GB|A100 80GB PCIe", 312.0, 312.0, 19.5),
    (r"A10", 125.0, 125.0, 31.2),
    (r"A30", 165.0, 165.0, 10.3),
    (r"A40", 149.7, 149.7, 37.4),
    (r"RTX A6000", 154.8, 154.8, 38.7),
    (r"GeForce RTX 3090", 71.0, 71.0, 35.6),
    (r"GeForce RTX 4090", 165.2, 165.2, 82.6),
    (r"L4", 121.0, 121.0, 30.3),
    (r"L40S", 362.0, 362.0, 91.6),
    (r"H100 80GB HBM3|H200", 989.0, 989.0, 67.0),
    (r"H100 PCIe", 756.0, 756.0, 51.0),
    (r"H100 NVL|H200 NVL", 835.0, 835.0, 60.0),
)
"""Cards by torch's name for them, and TFLOPS in fp16, bf16 and fp32: dense, with sums in fp32, from NVIDIA's data sheet
of each card (for GeForce the whitepapers of GA102 and AD102). A part of one (MIG) has another name."""
FORWARD, BACKWARD = 2, 2
"""Operations of a weight and token: a multiplication and an addition forward; the same again for the gradient of the
weight, and once more for that of the input."""
UNLIKE = ("num_experts", "num_local_experts", "n_routed_experts", "relative_attention")
"""In the config of a model that sends a token through some of its weights only, or attends to places too (DeBERTa)."""


def peak(name: str, precision: str) -> float | None:
    """Operations a second of a card at best; None for one that is not known, and is not guessed.

    >>> peak("Tesla V100-SXM2-32GB", "fp16")
    125000000000000.0
    """
    if precision == "fp32" and torch.get_float32_matmul_precision() != "highest":
        return None  # somebody has allowed TF32, which has a peak of its own
    card = re.sub(r"^(NVIDIA|Tesla) ", "", name)
    for pattern, *tera in PEAKS:
        if re.fullmatch(pattern, card):
            found = tera[("fp16", "bf16", "fp32").index(precision)]
            return None if found is None else found * 1e12
    return None


@dataclass(frozen=True)
class Flops:
    """Operations that learning a row takes: what is computed twice (gradient checkpointing) or padded is not in it."""

    token: float
    """Of each token that is read."""
    target: float
    """Of each token that is learnt: the vocabulary projection, which is made nowhere else."""
    pair: float
    """Of each pair of tokens in a row: the attention, causal or not, as the paper counts it."""

    def of(self, tokens: int, targets: int, pairs: int) -> float:
        """Operations of a step; `pairs` is the sum of the squared lengths of its rows."""
        return self.token * tokens + self.target * targets + self.pair * pairs


def count(model: Any, *, classes: bool = False) -> Flops | None:
    """The operations of a model; None where its parts are of a kind that this does not know.

    With `classes` a row is one target, for the head and a pooler below it; else a token, for the vocabulary projection.

    Forward and backward make 6 for each weight, 4 for a frozen one whose input learns, and 2 for one below all that
    learns. Embeddings are looked up, not multiplied.
    """
    config = model.config.get_text_config()
    if any(getattr(config, key, None) for key in UNLIKE) or any(weight.ndim > 2 for weight in model.parameters()):
        return None
    try:
        layers, heads, width = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    except AttributeError:
        return None
    if not (head := _head(model, classes=classes)):
        return None
    body, top, learns = 0, 0, False  # whether anything between the tokens and here learns
    for module in model.modules():
        if module in head:
            top += _weights(module) * _work(module, learns)
        else:
            body += _weights(module) * _work(module, learns)
        learns = learns or _learns(module)
    blocks = next((part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == layers), None)
    if blocks is None:
        return None
    attended = 2 * heads * (getattr(config, "head_dim", None) or width // heads)  # with queries, then with weights
    quiet = _below(model, blocks)
    pair = attended * (FORWARD * layers + 2 * BACKWARD * (layers - quiet))
    return Flops(body, top, pair)


def _head(model: Any, *, classes: bool) -> set[nn.Module]:
    """The modules that compute nothing but of targets; none where the model has no such."""
    if not classes:
        return {head} if (head := model.get_output_embeddings()) is not None else set()
    body = set(model.base_model.modules())
    if isinstance(pooler := getattr(model.base_model, "pooler", None), nn.Module):
        body -= set(pooler.modules())
    return set(model.modules()) - body


def _weights(module: nn.Module) -> int:
    """How many weights this module multiplies a token with; of a quantised one too, whose tensor is packed."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return module.weight.numel() if isinstance(module, Conv1D) else 0


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters(recurse=False))


def _work(module: nn.Module, input_learns: bool) -> int:
    if _learns(module):
        return FORWARD + 2 * BACKWARD
    return FORWARD + BACKWARD * input_learns


def _below(model: nn.Module, blocks: nn.ModuleList) -> int:
    """How many blocks lie below all that learns."""
    owner = {id(weight): number for number, block in enumerate(blocks) for weight in block.parameters()}
    passed = 0
    for weight in model.parameters():
        number = owner.get(id(weight))
        if weight.requires_grad:
            return passed if number is None else number
        passed = passed if number is None else number + 1
    return passed
