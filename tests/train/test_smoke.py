"""The parts of a smoke test: rows of every class, and a tiny model of whatever architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hpcft.train.smoke import choose, tiny

DECODERS = ("gpt2", "llama", "gpt_neox", "opt", "qwen3", "gemma2", "phi3", "bloom")
ENCODERS = ("bert", "distilbert", "roberta", "electra", "albert", "deberta", "deberta-v2")


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS])
def test_every_family_has_a_tiny_model_that_reads_the_same_tokens(kind: str) -> None:
    config = AutoConfig.for_model(kind)
    small = tiny(config)
    make: Any = AutoModelForCausalLM if kind in DECODERS else AutoModel
    model = make.from_config(small)
    assert small.vocab_size == config.vocab_size
    embeddings = model.get_input_embeddings().weight.numel()
    assert sum(part.numel() for part in model.parameters()) - embeddings < config.vocab_size * 64 + 500_000
    with torch.no_grad():
        assert len(model(input_ids=torch.tensor([[5, config.vocab_size - 1, 7]]))[0]) == 1


def test_rows_are_chosen_from_every_class_in_turn_and_else_from_everywhere() -> None:
    rows = [{"label": "a", "at": index} for index in range(90)] + [{"label": "b", "at": index} for index in range(3)]
    chosen = choose(rows, 8)
    assert [row["label"] for row in chosen] == ["a", "b", "a", "b", "a", "b", "a", "a"]
    plain = [{"text": str(index)} for index in range(100)]
    assert [row["text"] for row in choose(plain, 4)] == ["0", "25", "50", "75"]
    assert choose(plain[:3], 4) == plain[:3]
