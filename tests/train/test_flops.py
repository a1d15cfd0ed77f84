"""The arithmetic of a step against torch's own count, and the peak of cards that are known."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from hpcft.train import flops

LLAMA = LlamaConfig(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16,
)  # fmt: skip
SHAPES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=3, n_head=2)),
    "llama": lambda: LlamaForCausalLM(LLAMA),
}


def counted(model: torch.nn.Module, rows: int, length: int) -> int:
    """What torch's own counter sees of a forward and backward pass; its attention is not fused there."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    tokens = torch.randint(0, 97, (rows, length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.float().sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_the_operations_are_those_that_torch_counts(shape: str, frozen: int) -> None:
    model = SHAPES[shape]()
    if frozen:
        base = model.transformer if shape == "gpt2" else model.model
        model.get_input_embeddings().weight.requires_grad_(False)
        if shape == "gpt2":
            base.wpe.weight.requires_grad_(False)
        for block in (base.h if shape == "gpt2" else base.layers)[:frozen]:
            block.requires_grad_(False)
    mine = flops.count(model)
    assert mine
    # torch's graph skips the gradient of the lowest learning matrices' own input; no convention counts that apart.
    assert mine.of(4 * 24, 4 * 24, 4 * 24 * 24) == pytest.approx(counted(model, 4, 24), rel=0.04)


def test_low_rank_adapters_leave_four_operations_to_a_frozen_weight() -> None:
    model = SHAPES["llama"]()
    whole = flops.count(model)
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)  # a gradient has to come down to here
    frozen = flops.count(model)
    assert whole and frozen
    assert frozen.token / whole.token == pytest.approx(4 / 6)
    assert frozen.target / whole.target == pytest.approx(4 / 6)
    assert frozen.pair == whole.pair


def test_a_mixture_of_experts_is_not_guessed() -> None:
    config = MixtralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    assert flops.count(MixtralForCausalLM(config)) is None


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("Tesla V100-SXM2-32GB", "fp32", 15.7),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16", None),
        ("NVIDIA H200", "bf16", 989.0),
        ("NVIDIA H200 NVL", "bf16", 835.0),
        ("NVIDIA GeForce RTX 5090", "fp16", None),
    ],
)
def test_the_peak_is_the_cards_own_or_none(name: str, precision: str, tera: float | None) -> None:
    assert flops.peak(name, precision) == (None if tera is None else tera * 1e12)


def test_where_tf32_is_allowed_the_peak_of_fp32_is_another() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert flops.peak("NVIDIA H200", "fp32") is None
    finally:
        torch.set_float32_matmul_precision(before)
