"""LoRA: low-rank adapters beside frozen weights, through peft; GPT-2's attention is taken apart for it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D

from hpcft.data.randomness import set_randomness
from hpcft.errors import Fault, UserError
from hpcft.sections import Lora, Model, Train
from hpcft.train.model import LANGUAGE, Head, LossModel
from hpcft.train.quantize import quantize_within

APART = ("q_proj", "k_proj", "v_proj")
"""What the three parts of GPT-2's fused projection are called here, in their order there."""
ATTENTION = (
    APART,  # Llama, Mistral, Qwen, Gemma, OPT, GPT-J, and GPT-2 taken apart
    ("query_key_value",),  # GPT-NeoX, BLOOM, Falcon
    ("qkv_proj",),  # Phi-3
    ("query", "key", "value"),  # BERT, RoBERTa, ELECTRA, ALBERT
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("query_proj", "key_proj", "value_proj"),  # DeBERTa-v2 and -v3
    ("in_proj",),  # DeBERTa
    ("c_attn",),  # GPT-BigCode
    ("Wqkv",),  # MPT
)
"""What the attention's query, key and value are called, by family."""


class QueryKeyValue(nn.Module):
    """GPT-2's fused projection in three, each of which can have an adapter of its own: (B, T, C) to (B, T, 3 C)."""

    def __init__(self, fused: Conv1D) -> None:
        super().__init__()
        for name, weight, bias in zip(APART, fused.weight.T.chunk(3), fused.bias.chunk(3), strict=True):
            with torch.device("meta"):  # draws no random numbers for weights that are replaced
                linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
            linear.bias = nn.Parameter(bias.detach().clone())
            self.add_module(name, linear)

    def forward(self, hidden: Tensor) -> Tensor:
        """What the fused one gives."""
        return torch.cat([self.get_submodule(name)(hidden) for name in APART], dim=-1)


def fused_attention(model: nn.Module) -> list[tuple[str, Conv1D]]:
    """Names and modules of the fused query, key and value of a GPT-2; none in other families."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, GPT2Attention) and isinstance(module.c_attn, Conv1D) and not module.is_cross_attention:
            found.append((f"{name}.c_attn", module.c_attn))
    return found


def take_apart(model: nn.Module) -> list[QueryKeyValue]:
    """Split every fused query, key and value, so that rank 8 means rank 8 for each."""
    made = []
    for name, fused in fused_attention(model):
        made.append(QueryKeyValue(fused))
        model.set_submodule(name, made[-1])
    return made


def add_adapters(model: LossModel, lora: Lora, source: Model, train: Train, head: Head = LANGUAGE) -> None:
    """Freeze the model and put adapters, in fp32, beside its linear modules; they begin the same in every job.

    A head of classes has learnt nothing yet, so it is trained too, whole.

    Raises UserError: a target is no linear module of this model.
    """
    from peft import LoraConfig, get_peft_model  # takes seconds, and only runs with adapters need it

    inner = model.inner
    # Of a quantised GPT-2 the attention is still whole, for this.
    if source.quantize or lora.targets is None or set(APART) & set(lora.targets):
        for part in take_apart(inner):
            if source.quantize:
                quantize_within(part, source.quantize, train.precision)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=sorted(find_targets(inner, lora.targets)),
        revision=source.revision,
        task_type=head.peft,
        modules_to_save=None if head is LANGUAGE else class_head(inner),
    )
    set_randomness(train.seed, "adapters")
    adapted = get_peft_model(inner, config)
    adapted.peft_config["default"].base_model_name_or_path = source.path
    model.write = partial(write_adapters, adapted)


def find_targets(model: Any, wanted: Iterable[str] | None) -> set[str]:
    """Last parts of the names of the modules that get an adapter: those wanted, else the attention's."""
    there = linear_names(model)
    listed = f"It has {', '.join(sorted(there))}."
    if wanted is None:
        for names in ATTENTION:
            if set(names) <= there:
                return set(names)
        what = "lora.targets is missing, and what this model calls its query, key and value is not known."
        raise UserError(Fault("recipe", what, listed))
    if missing := [name for name in wanted if name not in there]:
        raise UserError(
            [Fault("recipe", f'lora.targets: no linear module is called "{name}".', listed) for name in missing]
        )
    return set(wanted)


def linear_names(model: Any) -> set[str]:
    """Last parts of the names of all linear modules but the head, which may be the input embedding at the same time."""
    head = model.get_output_embeddings()
    outside = () if head is not None else tuple(class_head(model))
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not name.startswith(outside)
    }


def class_head(model: Any) -> list[str]:
    """Names of the modules with weights that stand on the body: `score`, `classifier`, and a pooler of DeBERTa's."""
    return [
        name
        for name, module in model.named_children()
        if module is not model.base_model and any(True for _ in module.parameters())
    ]


def hold_in_half(model: LossModel, precision: str) -> None:
    """Keep frozen matrices in the precision that they are multiplied in: half the memory, and the same bits.

    Mixed precision would cast each of them in every pass, since it remembers only casts of what is trained.
    """
    if precision == "fp32":
        return
    head = model.inner.get_output_embeddings()
    for module in model.inner.modules():
        trained = any(parameter.requires_grad for parameter in module.parameters())
        if not isinstance(module, nn.Linear | Conv1D) or module is head or trained:
            continue
        if module.weight.dtype == torch.float32:  # and not quantised
            module.to(torch.float16 if precision == "fp16" else torch.bfloat16)


def write_adapters(adapted: Any, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters as peft does; those of a GPT-2 taken apart as one of the fused projection, which every
    program that reads peft's folders can load beside the plain model."""
    from peft import get_peft_model_state_dict

    config = copy.copy(adapted.peft_config["default"])
    config.inference_mode = True
    state = weights and {f"base_model.{name}": tensor for name, tensor in weights.items()}
    tensors = {name: tensor.detach() for name, tensor in get_peft_model_state_dict(adapted, state).items()}
    if any(isinstance(module, QueryKeyValue) for module in adapted.modules()):
        parts = [name for name in APART if name in config.target_modules]
        tensors = join(tensors, parts)
        rest = set(config.target_modules) - set(parts)
        config.fan_in_fan_out = True
        config.target_modules = {"c_attn", *rest}
        rank, alpha = config.r * len(parts), config.lora_alpha * len(parts)
        if rest:
            config.rank_pattern, config.alpha_pattern = {"c_attn": rank}, {"c_attn": alpha}
        else:
            config.r, config.lora_alpha = rank, alpha
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    config.save_pretrained(folder)


def join(tensors: Mapping[str, Tensor], parts: list[str]) -> dict[str, Tensor]:
    """The adapters of some parts of a fused projection as one of the whole: A's stacked, B's on a diagonal.

    Three of rank 8 make one of rank 24 with the same product: A (24, C), B (3 C, 24).
    """
    joined: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        around, mark, behind = name.partition(f".{parts[0]}.lora_A.")
        if mark:
            downs = [tensors[f"{around}.{part}.lora_A.{behind}"] for part in parts]
            ups = [tensors[f"{around}.{part}.lora_B.{behind}"] for part in parts]
            rank, width = tensor.shape[0], ups[0].shape[0]
            up = ups[0].new_zeros(width * len(APART), rank * len(parts))
            for index, (part, piece) in enumerate(zip(parts, ups, strict=True)):
                first = APART.index(part) * width
                up[first : first + width, index * rank : (index + 1) * rank] = piece
            joined[f"{around}.lora_A.{behind}"] = torch.cat(downs)
            joined[f"{around}.lora_B.{behind}"] = up
        elif not any(f".{part}.lora_" in name for part in parts):
            joined[name] = tensor
    return joined
