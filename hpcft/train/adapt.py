"""The model as the recipe has it trained: pretrained, random or in 4 bits; whole, in part, or beside it (LoRA)."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from hpcft.data.randomness import set_randomness
from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.sections import Model
from hpcft.train.classmodel import head_of
from hpcft.train.model import LANGUAGE, UNLOADABLE, Head, LossModel, load_model, loading_fault, loss_model

HASHED = 4096
"""Values of each frozen tensor that go into its hash, evenly spread: other weights differ in all of them."""


def load_adapted(recipe: Recipe, source: Model, device: torch.device | None = None) -> LossModel:
    """The recipe's model from `source`, where what is not to be trained needs no gradient; on the CPU unless `device`
    is given and nothing but pretrained weights is to go there.

    The same on every process and in every job. Raises UserError: it does not load, or has nothing of what to train.
    """
    head = head_of(recipe.task, recipe.data)
    set_randomness(recipe.train.seed, "model")  # a head that the files do not have is drawn
    if source.weights == "random":
        model = random_model(source, recipe.train.seed, head)
    elif source.quantize:
        from hpcft.train.quantize import quantized_model  # here, since a job waits for what it imports

        model = quantized_model(source, recipe.train.precision, gpu=recipe.resources.gpus > 0, head=head)
    else:
        model = load_model(source, None if recipe.lora else device, head)
    if recipe.lora:
        from hpcft.train.lora import add_adapters

        add_adapters(model, recipe.lora, source, recipe.train, head)
    freeze(model.model, source.freeze, classes=recipe.has_classes)
    return model


def random_model(source: Model, seed: int, head: Head = LANGUAGE) -> LossModel:
    """A model of this shape that has learnt nothing, in fp32."""
    try:
        config = AutoConfig.from_pretrained(source.path, revision=source.revision or "main", **head.settings)
        set_randomness(seed, "weights")
        made = head.auto.from_config(config, dtype=torch.float32)
    except UNLOADABLE as error:
        raise UserError(loading_fault("model", source.path, error)) from error
    return loss_model(made, head)


def freeze(model: Any, what: str | int, *, classes: bool = False) -> None:
    """Take the gradient from the body, or from the embeddings and so many of the lowest layers.

    A head of classes has learnt nothing yet, and a pooler below it, which sums up what the layers say, learns with it.
    Raises UserError: nothing would be left, or there are fewer layers.
    """
    if what == "none":
        return
    if what == "body" and classes:
        model.base_model.requires_grad_(False)
        if isinstance(pooler := getattr(model.base_model, "pooler", None), nn.Module):
            pooler.requires_grad_(True)
        return
    if what == "body":
        head, inputs = model.get_output_embeddings(), model.get_input_embeddings()
        if head is None or head.weight is inputs.weight:
            what = 'model.freeze = "body": the head of this model is its input embedding, so nothing is left to train.'
            raise UserError(Fault("recipe", what, "Freeze a number of layers, or use lora."))
        model.requires_grad_(False)
        head.requires_grad_(True)
        return
    layers = layer_list(model)
    count = len(layers)
    if int(what) > count:
        raise UserError(
            Fault("recipe", f"model.freeze = {what}: the model has {count} layers.", f"Write {count} at most.")
        )
    for part in (*embeddings(model, layers), *layers[: int(what)]):
        part.requires_grad_(False)


def layer_list(model: Any) -> nn.ModuleList:
    """The layers of a model, lowest first: its largest list of modules, whatever its family calls it."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(Fault("recipe", "model.freeze: this model has no list of layers.", 'Write "none".'))
    # The first of equals: experts lie in lists within the layers.
    return max(lists, key=lambda part: sum(parameter.numel() for parameter in part.parameters()))


def embeddings(model: Any, layers: nn.ModuleList) -> list[nn.Module]:
    """What stands before the layers: tokens and positions, and a norm that belongs to them (BLOOM)."""
    inside = set(layers.modules())
    return [
        module
        for name, module in model.base_model.named_modules()
        if module not in inside
        and (isinstance(module, nn.Embedding) or ("embed" in name and not any(True for _ in module.children())))
    ]


def frozen_hash(model: LossModel) -> str | None:
    """A hash of all weights that are not trained, so that a job finds those that its checkpoint was trained upon.

    None where every weight is trained. Of the weights themselves: neither a path nor a commit tells what a folder
    holds today. Only some values of each tensor, so that it takes milliseconds.
    """
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return None
    packed = any(not parameter.is_floating_point() for _, parameter in frozen)
    digest = hashlib.sha256()
    for name, parameter in frozen:
        if packed and parameter.ndim < 2:
            continue  # bitsandbytes casts biases to the precision of the pass, which may change between jobs
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // HASHED)].cpu().contiguous()
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def trained_words(model: LossModel) -> str:
    """`trains 442368 of 124882176 parameters`."""
    sizes = [(_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return f"trains {sum(size for size, trained in sizes if trained)} of {sum(size for size, _ in sizes)} parameters"


def _size(parameter: Any) -> int:
    """Numbers in a parameter; NF4 holds two of them in a byte, and knows their shape."""
    packed = getattr(parameter, "quant_state", None)
    return math.prod(packed.shape) if packed is not None else parameter.numel()
