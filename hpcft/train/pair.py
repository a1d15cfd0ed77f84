"""Two texts read apart by one encoder, and a head that compares them: a module, and a folder that it is left in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

FACTS = "pair.json"
HEAD = "head.safetensors"


class Pair(nn.Module):
    """An encoder, and a head on what it has read of two texts, one behind the other.

    The head is that of RoBERTa, with an entry twice as wide: dropout, dense, tanh, dropout, out.
    """

    def __init__(self, encoder: Any, labels: Sequence[str], pair: str, max_length: int, pooled: str) -> None:
        super().__init__()
        width = int(encoder.config.hidden_size)
        self.encoder = encoder
        self.dropout = nn.Dropout(float(getattr(encoder.config, "hidden_dropout_prob", 0.1)))
        self.dense = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, len(labels))
        self.facts = {"labels": list(labels), "pair": pair, "max_length": max_length, "pooled": pooled}

    @classmethod
    def around(cls, loaded: Any, labels: Sequence[str], pair: str, max_length: int) -> Pair:
        """Of the body of a model for classes, which has just what its own head needs of it."""
        encoder = loaded.base_model
        pooled = "last" if hasattr(loaded, "score") else "pooler" if _has_pooler(encoder) else "first"
        return cls(encoder, labels, pair, max_length, pooled)

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Pair:
        """The one that save_pretrained has left in this folder."""
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
        if facts["pooled"] != "pooler" and _has_pooler(encoder):
            encoder.pooler = None  # some families have it anew unless they are told, and it is not used
        made = cls(encoder, **facts)
        told = made.load_state_dict(load_file(folder / HEAD), strict=False)
        if told.unexpected_keys or not all(name.startswith("encoder.") for name in told.missing_keys):
            raise ValueError(f"{folder / HEAD} is the head of another model")
        return made.to(dtype).eval()

    @property
    def base_model(self) -> Any:
        """The encoder, as transformers calls it in its own models."""
        return self.encoder

    @property
    def config(self) -> Any:
        """The encoder's."""
        return self.encoder.config

    def read(self, tokens: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """(texts, width): what the encoder says of each text as a whole."""
        given: dict[str, Any] = {"token_type_ids": segments} if segments is not None else {}
        if self.facts["pooled"] == "last":
            given["use_cache"] = False
        found = self.encoder(input_ids=tokens, attention_mask=mask, **given)
        if self.facts["pooled"] == "pooler":
            read: Tensor = found.pooler_output
            return read
        places = mask.sum(dim=1) - 1 if self.facts["pooled"] == "last" else torch.zeros_like(mask[:, 0])
        hidden: Tensor = found[0][torch.arange(len(tokens), device=tokens.device), places]
        return hidden

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """(rows, classes)"""
        hidden = self.dense(self.dropout(torch.cat([first, second], dim=-1)))
        verdict: Tensor = self.out(self.dropout(torch.tanh(hidden)))
        return verdict

    def activation_checkpointing_enable(self, settings: dict[str, Any]) -> None:
        """See model.checkpoint_activations."""
        encoder = self.encoder
        enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
        enable(settings)

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Leave the encoder as a plain folder of transformers, and beside it the head and what it means."""
        state = state_dict or self.state_dict()
        prefix = "encoder."
        body = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        head = {name: tensor.contiguous() for name, tensor in state.items() if not name.startswith(prefix)}
        self.encoder.save_pretrained(folder, state_dict=body)
        save_file(head, Path(folder) / HEAD)
        (Path(folder) / FACTS).write_text(json.dumps(self.facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _has_pooler(encoder: Any) -> bool:
    return isinstance(getattr(encoder, "pooler", None), nn.Module)
