"""The blueprint: a step of the recipe's model on tensors that have a size and no data, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from hpcft.errors import UserError
from hpcft.recipe import TASKS, Recipe
from hpcft.sections import Data, Lora, Model, Train
from hpcft.train.adapt import freeze, layer_list
from hpcft.train.classmodel import head_of
from hpcft.train.ledger import Ledger
from hpcft.train.model import (
    LANGUAGE,
    UNLOADABLE,
    LossModel,
    checkpoint_activations,
    fuse_gelu,
    loading_fault,
)

SMALL = 4096
"""Elements below which the 8-bit AdamW keeps moments in fp32."""


@dataclass(frozen=True)
class Step:
    """What of a recipe a step's tensors depend on."""

    task: str
    head: str
    """What its head depends on, as JSON."""
    path: str
    revision: str
    freeze: str | int
    lora: str
    """As JSON, empty without it."""
    rows: int
    length: int
    packed: bool
    precision: str
    checkpointing: bool
    kept: bool
    """Whether gradients live from one micro-batch to the next."""
    cuda: bool


@dataclass(frozen=True)
class Measure:
    """What a step takes, and the model's numbers."""

    peak: dict[str, int]
    """Bytes by kind at the moment when their sum is largest."""
    parameters: int
    trained: int
    small: int
    """Of the trained, those in tensors of fewer than 4096 elements."""
    layer: int
    """Parameters of the largest layer."""
    layers: int
    """Parameters of all layers; the rest is embeddings, the last norm and the head."""


class Blueprint(LossModel):
    """The model as it trains, of tensors without data: none of what it computes could be looked at."""

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.projects_exactly = model.get_output_embeddings() is not None and model.base_model is not model
        self.needs_mask = False


def step_of(recipe: Recipe, rows: int) -> Step:
    """The step that takes the most: every row as long as `data.max_length`, every token a target."""
    train = recipe.train
    several = recipe.processes > 1 or train.batch_size is None or rows < train.batch_size
    return Step(
        recipe.task,
        recipe.data.model_dump_json(include={"train", "labels", "pair"}),
        recipe.model.path,
        recipe.model.revision or "main",
        recipe.model.freeze,
        recipe.lora.model_dump_json() if recipe.lora else "",
        rows,
        recipe.data.max_length,
        train.grouping == "packed",
        train.precision,
        train.gradient_checkpointing,
        several,
        bool(recipe.resources.gpus),
    )


@cache
def measure(step: Step) -> Measure:
    """What a step takes, from running it without data. Raises UserError if the model's config does not load."""
    model = _blueprint(step)
    with FakeTensorMode(), _as_on_cuda() if step.cuda else nullcontext():
        _put_on_cpu(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        classes = TASKS[step.task].classes
        ledger = Ledger(model, 0 if classes else int(model.inner.config.get_text_config().vocab_size))
        if step.kept:
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            ledger.enter((parameter.grad for parameter in trained if parameter.grad is not None), "gradients")
        shape = (step.rows, step.length)
        inputs = {
            "tokens": torch.zeros(shape, dtype=torch.long),
            "places": torch.arange(step.rows * step.length - 1),
            "labels": torch.zeros(step.rows * step.length - 1, dtype=torch.long),
        }
        if step.packed:
            inputs["positions"] = torch.zeros(shape, dtype=torch.long)
        if classes:
            inputs = model.example(step.rows, step.length, 0)
        ledger.enter(inputs.values(), "activations")
        with ledger:
            with autocast("cpu", step.precision, step.checkpointing):  # also for CUDA, whose own needs a card
                loss = model(**inputs)
            loss.backward()
    return Measure(dict(ledger.peak), *_numbers(model))


def autocast(device: str, precision: str, checkpointing: bool) -> torch.autocast:
    """Mixed precision as it is in training.

    Its copies of weights would be kept to the end of the forward pass; where activations are computed again, nobody
    needs them there.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device, kind, enabled=precision != "fp32", cache_enabled=not checkpointing)


def _blueprint(step: Step) -> LossModel:
    """The model, on "meta"."""
    try:
        head = head_of(step.task, Data.model_validate_json(step.head))
        config = AutoConfig.from_pretrained(step.path, revision=step.revision, **head.settings)
        with torch.device("meta"):
            made = head.auto.from_config(config, dtype=torch.float32).train()
            model: LossModel = Blueprint(made) if head is LANGUAGE else head.wrap(made)
            fuse_gelu(made)
            if step.lora:
                from hpcft.train.lora import add_adapters, hold_in_half  # imports what others need not

                add_adapters(model, Lora.model_validate_json(step.lora), Model(path=step.path), Train(), head)
                hold_in_half(model, step.precision)
    except UNLOADABLE as error:
        raise UserError(loading_fault("model", step.path, error)) from error
    freeze(model.model, step.freeze, classes=head is not LANGUAGE)
    if step.checkpointing:
        checkpoint_activations(model)
    return model


def _put_on_cpu(model: nn.Module) -> None:
    """Replace all that is on "meta", where no autocast takes place, by what says to be on the CPU; ties stay tied."""
    placed: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor not in placed:
                    bare = torch.empty(tensor.shape, dtype=tensor.dtype)
                    weight = isinstance(tensor, nn.Parameter)
                    placed[tensor] = nn.Parameter(bare, tensor.requires_grad) if weight else bare
                if tensor is not None:
                    held[name] = placed[tensor]  # type: ignore[assignment]


def _numbers(model: LossModel) -> tuple[int, int, int, int, int]:
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layer_list(model.inner)]
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in trained),
        sum(parameter.numel() for parameter in trained if parameter.numel() < SMALL),
        max(sizes, default=0),
        sum(sizes),
    )


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    """Attention and dropout as CUDA keeps them: logsumexp in place of probabilities, masks of one byte."""
    attention, dropout = F.scaled_dot_product_attention, F.dropout

    def efficient(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The memory-efficient kernel, the one that every card from Maxwell on has."""
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        if attn_mask is not None:
            whole = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).expand(whole)
        made: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
        )[0]
        return made

    def fused(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        made: Tensor = torch.ops.aten.native_dropout(input, p, True)[0] if training and p else input
        return made

    F.scaled_dot_product_attention, F.dropout = efficient, fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.dropout = attention, dropout
