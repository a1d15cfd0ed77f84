"""Frozen weights in 4 or 8 bits, for adapters beside them: NF4 (QLoRA, arXiv 2305.14314) and LLM.int8 (2208.07339)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D

from hpcft.errors import UserError
from hpcft.sections import Model
from hpcft.train.model import LANGUAGE, UNLOADABLE, Head, LossModel, loading_fault, loss_model

COMPUTE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WHOLE = {"gpt2": ["c_attn", "lm_head", "score"]}
"""By family, what stays as it is beside the heads that transformers knows: GPT-2's attention is taken apart first."""

SMALL = ("Linear4bit", "Linear8bitLt")
"""Linear modules of bitsandbytes."""


def quantized_model(source: Model, precision: str, *, gpu: bool, head: Head = LANGUAGE) -> LossModel:
    """The pretrained model with its linear modules in few bits, multiplied in `precision`; all else is in fp32.

    It is on the process's own GPU if it may use one and there is one: what is not packed yet need not fit there.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a cast in every product of int8
    where = {"revision": source.revision or "main"}
    device = torch.cuda.current_device() if gpu and torch.cuda.is_available() else "cpu"
    try:
        family = AutoConfig.from_pretrained(source.path, **where).model_type
        config = bits(source.quantize, precision, WHOLE.get(family))
        loaded = head.auto.from_pretrained(
            source.path,
            dtype=torch.float32,
            quantization_config=config,
            device_map={"": device},
            **where,
            **head.settings,
        )
    except UNLOADABLE as error:
        raise UserError(loading_fault("model", source.path, error)) from error
    keep_differentiable(loaded)
    return loss_model(loaded, head)


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes (0.50) from packing NF4 anew for some CPUs at the first evaluation: what has been packed so
    gives no gradient any more, and says nothing."""
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def bits(kind: str | None, precision: str, whole: list[str] | None = None) -> Any:
    """What transformers is told. The scales of NF4 are quantised too, which saves 0.4 bits a weight."""
    told: dict[str, Any] = {"load_in_8bit": True}
    if kind == "nf4":
        told = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": COMPUTE[precision],
        }
    return BitsAndBytesConfig(**told, llm_int8_skip_modules=whole)  # type: ignore[no-untyped-call]


def quantize_within(module: nn.Module, kind: str, precision: str) -> None:
    """Put a module in few bits in the place of every linear one in this one."""
    import bitsandbytes  # not before it is needed: it looks for CUDA libraries

    kinds: Any = bitsandbytes.nn
    for name, linear in list(module.named_children()):
        assert isinstance(linear, nn.Linear)
        sizes = (linear.in_features, linear.out_features, linear.bias is not None)
        if kind == "int8":
            small = kinds.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
        else:
            small = kinds.Linear4bit(*sizes, compute_dtype=COMPUTE[precision], quant_type="nf4")
        small.load_state_dict(linear.state_dict())
        module.set_submodule(name, small.to(linear.weight.device).requires_grad_(False))
    keep_differentiable(module)


def rounded_model(source: Model, head: Head = LANGUAGE) -> Any:
    """The plain model in fp32, with each weight as the quantised model has it: what adapters were trained beside."""
    from hpcft.train.lora import QueryKeyValue, fused_attention

    where = {"revision": source.revision or "main", **head.settings}
    plain = head.auto.from_pretrained(source.path, dtype=torch.float32, **where)
    parts = {name: QueryKeyValue(fused) for name, fused in fused_attention(plain)}
    for name, part in quantized_model(source, "fp32", gpu=True, head=head).inner.named_modules():
        if type(part).__name__ in SMALL:
            _put(plain.get_submodule(name), _rounded(part))
    for name, part in parts.items():
        quantize_within(part, str(source.quantize), "fp32")
        _put(plain.get_submodule(name), torch.cat([_rounded(child) for child in part.children()]))
    return plain


def _rounded(module: Any) -> Tensor:
    """(out, in), in fp32"""
    found: Tensor = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
    return found.float().cpu()


def _put(module: Any, weight: Tensor) -> None:
    """Give a linear module this weight, (out, in), whichever way round it holds its own."""
    with torch.no_grad():
        module.weight.copy_(weight.T if isinstance(module, Conv1D) else weight)
