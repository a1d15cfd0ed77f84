"""The model: a causal language model with a loss that is computed only where labels count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.errors import Fault, UserError
from hpcft.recipe import Model
from hpcft.rundir import read_json, write_json

UNLOADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
"""What transformers 5 raises for a folder or id that holds no usable model, or one that needs another package."""


class LossModel(nn.Module):
    """A causal language model whose forward gives the summed loss of its targets.

    The vocabulary projection, the largest tensor of a small model, is made only where there is a target.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.projects_exactly = _projects_exactly(model)

    def forward(self, tokens: Tensor, mask: Tensor, trained: Tensor) -> Tensor:
        """Scalar: cross-entropy in fp32, summed over the targets of this micro-batch; all inputs are (B, T)."""
        targets = trained[:, 1:]
        logits = self.logits(tokens, mask, targets)
        return F.cross_entropy(logits.float(), tokens[:, 1:][targets], reduction="sum")

    def logits(self, tokens: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """(places that are True, vocabulary): what is predicted after each place; `places` is (B, T - 1)."""
        if self.projects_exactly:
            hidden = self.model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False)[0]
            logits: Tensor = self.model.get_output_embeddings()(hidden[:, :-1][places])
            return logits
        whole: Tensor = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return whole[:, :-1][places]


def _projects_exactly(model: Any) -> bool:
    """Whether head(body(x)) is all that the model does; some scale or cap their logits behind the head."""
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    training = model.training
    model.eval()
    tokens = torch.arange(1, 9, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        whole = model(input_ids=tokens, use_cache=False).logits
        parts = head(model.base_model(input_ids=tokens, use_cache=False)[0])
    model.train(training)
    return bool(torch.allclose(whole, parts, rtol=1e-5, atol=1e-5))


def pin_revision(model: Model, record: Path) -> Model:
    """The model at the commit of the hub that is recorded, else at today's, which is recorded then.

    A folder stays as it is. Raises UserError if the model is nowhere.
    """
    if model.path.startswith("/"):
        return model
    if found := read_json(record):
        return model.model_copy(update={"revision": found["commit"]})
    try:
        config = hf_hub_download(model.path, "config.json", revision=model.revision or "main")
    except UNLOADABLE as error:
        raise UserError(_load_fault("model", model.path, error)) from error
    commit = Path(config).parent.name  # of the snapshot
    write_json(record, {"path": model.path, "revision": model.revision or "main", "commit": commit})
    return model.model_copy(update={"revision": commit})


def load_tokenizer(model: Model) -> Any:
    """The tokenizer beside the model. Raises UserError if it does not load."""
    try:
        return AutoTokenizer.from_pretrained(model.path, revision=model.revision or "main")
    except UNLOADABLE as error:
        raise UserError(_load_fault("tokenizer", model.path, error)) from error


def load_model(model: Model) -> LossModel:
    """The model in fp32, on the CPU, ready to train. Raises UserError if it does not load.

    fp32 whatever the files hold: transformers 5 keeps their dtype, and fp16 weights cannot be unscaled.
    """
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model.path, revision=model.revision or "main", dtype=torch.float32
        )
    except UNLOADABLE as error:
        raise UserError(_load_fault("model", model.path, error)) from error
    loaded.train()
    return LossModel(loaded)


def _load_fault(what: str, path: str, error: Exception) -> Fault:
    words = str(error).strip().splitlines()
    fix = "Check model.path, and that compute nodes reach the hub if it is a hub id."
    return Fault(path, f"the {what} does not load: {words[0] if words else type(error).__name__}", fix)


def padding_token(tokenizer: Any) -> int:
    """A token for places that attention never sees; any will do."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
