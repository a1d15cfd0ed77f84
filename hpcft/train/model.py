"""The model: a causal language model with a loss that is computed only where labels count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.activations import NewGELUActivation

from hpcft.data.batches import Batch
from hpcft.disk import read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.sections import Model

UNLOADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
"""What transformers 5 raises for a folder or id that holds no usable model, or one that needs another package."""


Inputs = dict[str, Tensor | None]

LOGITS_AT_ONCE = 1 << 26
"""Numbers of logits that are held at a time: 256 MiB in fp32, beside as much for their gradient."""


class LossModel(nn.Module):
    """A causal language model whose forward gives the summed loss of its targets.

    The vocabulary projection, the largest tensor of a small model, is made only where there is a target, and a chunk
    at a time.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        with _evaluating(model), torch.no_grad():
            self.projects_exactly = _projects_exactly(self.inner)
            self.needs_mask = not _ignores_what_is_behind(self.inner)
        self.write: Callable[..., None] = partial(write_whole, model)
        """Writes what is left to use after training into a new folder; adapters know another way. What is trained may
        be given by name as it was at another time; None takes it as it is."""

    def saved_names(self) -> set[str]:
        """Names of the tensors that a checkpoint holds: what is trained, and buffers. The rest is loaded anew."""
        trained = {name for name, tensor in self.named_parameters(remove_duplicate=False) if tensor.requires_grad}
        return trained | {name for name, _ in self.named_buffers(remove_duplicate=False)}

    @property
    def inner(self) -> Any:
        """The model of transformers, without what peft puts around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(
        self,
        tokens: Tensor,
        places: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Scalar: cross-entropy in fp32, summed over the targets of this micro-batch. See `inputs`."""
        if not self.projects_exactly:
            logits = self._whole(tokens, mask, positions)[places]
            return F.cross_entropy(logits.float(), labels, reduction="sum")
        hidden = self._hidden(tokens, mask, positions)[places]
        pieces = torch.split(hidden, max(1, LOGITS_AT_ONCE // _vocabulary(self.inner)))
        if len(pieces) == 1:
            return self._loss(hidden, labels)
        losses = []
        for piece, some in zip(pieces, torch.split(labels, len(pieces[0])), strict=True):
            losses.append(checkpoint(self._loss, piece, some, use_reentrant=False))
        return torch.stack(losses).sum()

    def logits(self, tokens: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
        """(places, vocabulary): what is predicted behind each place, which is a number in the flat (B * T,) tokens."""
        if not self.projects_exactly:
            return self._whole(tokens, mask, None)[places]
        logits: Tensor = self.inner.get_output_embeddings()(self._hidden(tokens, mask, None)[places])
        return logits

    def generate(self, **inputs: Any) -> Tensor:
        """(B, T + new): prompts and what transformers' `generate` writes behind them."""
        written: Tensor = self.inner.generate(**inputs)
        return written

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.inner.get_output_embeddings()(hidden)
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    def _hidden(self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
        """(B * T, width)"""
        out = self.inner.base_model(input_ids=tokens, **_places_and_mask(mask, positions), use_cache=False)
        return out[0].flatten(0, 1)  # type: ignore[no-any-return]

    def _whole(self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
        """(B * T, vocabulary)"""
        out = self.inner(input_ids=tokens, **_places_and_mask(mask, positions), use_cache=False)
        return out.logits.flatten(0, 1)  # type: ignore[no-any-return]

    def inputs(self, batch: Batch, device: torch.device) -> Inputs:
        """What forward takes, on the device, from a batch on the CPU, where finding places costs no waiting.

        `places` are the numbers, in the flat (B * T,) tokens, of those that a target follows, `labels` the targets.
        Padding stands on the right, where a causal model does not look, so that most need no mask and SDPA may take
        its fastest kernel. Packed rows are told apart by their positions alone, which begin at 0 with each row:
        transformers makes a block-diagonal mask of that (with `use_cache=False`, or rows would see each other).
        """
        tokens, mask = batch["tokens"], batch["mask"]
        trained = batch["trained"].clone()
        trained[:, 0] = False
        following = trained.flatten().nonzero()[:, 0]
        made: Inputs = {"tokens": tokens, "places": following - 1, "labels": tokens.flatten()[following]}
        if bool((mask > 1).any()):
            made["positions"] = packed_positions(mask)
        elif self.needs_mask:
            made["mask"] = mask
        return {key: value.to(device, non_blocking=True) for key, value in made.items() if value is not None}

    def example(self, rows: int, length: int, pad: int) -> Batch:
        """A batch of so many rows of padding that are seen, and learnt."""
        tokens = torch.full((rows, length), pad)
        return {"tokens": tokens, "mask": torch.ones_like(tokens), "trained": torch.ones_like(tokens).bool()}


@dataclass(frozen=True)
class Head:
    """What a model is loaded as, by what of it answers."""

    auto: Any
    """The class of transformers that finds the model's own."""
    settings: Mapping[str, Any]
    """What it is told beside the path."""
    wrap: Callable[[Any], LossModel]
    """What gives the loss of it."""
    peft: str | None = None
    """What peft calls this kind; None where it knows none."""


LANGUAGE = Head(AutoModelForCausalLM, {}, LossModel, "CAUSAL_LM")
"""A causal language model, whose head predicts tokens."""


def packed_positions(mask: Tensor) -> Tensor:
    """(B, T): the place of each token in its own row, of lines in which `mask` numbers the rows; padding is one more.

    [[1, 1, 1, 2, 2, 0]] gives [[0, 1, 2, 0, 1, 0]].
    """
    places = torch.arange(mask.shape[1])[None].expand_as(mask)
    begins = torch.ones_like(mask, dtype=torch.bool)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def _places_and_mask(mask: Tensor | None, positions: Tensor | None) -> dict[str, Tensor]:
    given = {"attention_mask": mask, "position_ids": positions}
    return {key: value for key, value in given.items() if value is not None}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _some_tokens(model: Any, count: int) -> Tensor:
    return torch.arange(1, count + 1, device=model.device)[None] % _vocabulary(model)


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def write_whole(model: Any, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a model of transformers. Of what is not given only frozen weights are taken: they stay as they are."""
    state = None
    if weights is not None:
        state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if not tensor.requires_grad}
        state |= {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=state)


def _projects_exactly(model: Any) -> bool:
    """Whether head(body(x)) is all that the model does; some scale or cap their logits behind the head."""
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    tokens = _some_tokens(model, 8)
    whole = model(input_ids=tokens, use_cache=False).logits
    parts = head(model.base_model(input_ids=tokens, use_cache=False)[0])
    return bool(torch.allclose(whole, parts, rtol=1e-5, atol=1e-5))


def _ignores_what_is_behind(model: Any) -> bool:
    """Whether tokens on the right change nothing on the left, so that padding there needs no mask."""
    tokens = _some_tokens(model, 8)
    short = model(input_ids=tokens[:, :5], use_cache=False).logits
    long = model(input_ids=tokens, use_cache=False).logits[:, :5]
    return bool(torch.allclose(short, long, rtol=1e-4, atol=1e-4))


def packs_exactly(model: LossModel) -> bool:
    """Whether rows that stand in one line see nothing of each other: held against each of them alone."""
    inner = model.inner
    tokens = _some_tokens(inner, 12)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]], device=inner.device)
    with _evaluating(inner), torch.no_grad():
        try:
            line = inner(input_ids=tokens, position_ids=positions, use_cache=False).logits
        except TypeError:  # a model without positions
            return False
        alone = [inner(input_ids=row, use_cache=False).logits for row in (tokens[:, :5], tokens[:, 5:])]
    return bool(torch.allclose(line, torch.cat(alone, dim=1), rtol=1e-3, atol=1e-3))


def fuse_gelu(model: nn.Module) -> None:
    """Put torch's tanh GELU, one kernel, in the place of the same function composed of eight (`gelu_new`).

    GPT-2 XL keeps 3.6 GiB less for each 1,024 tokens of the backward pass that way.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


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
        raise UserError(loading_fault("model", model.path, error)) from error
    commit = Path(config).parent.name  # of the snapshot
    write_json(record, {"path": model.path, "revision": model.revision or "main", "commit": commit})
    return model.model_copy(update={"revision": commit})


def load_tokenizer(model: Model) -> Any:
    """The tokenizer beside the model, which neither pads nor cuts. Raises UserError if it does not load."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path, revision=model.revision or "main")
    except UNLOADABLE as error:
        raise UserError(loading_fault("tokenizer", model.path, error)) from error
    if tokenizer.is_fast:  # the file of a sentence encoder may ask for both, to a length of its own
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load_model(model: Model, device: torch.device | None = None, head: Head = LANGUAGE) -> LossModel:
    """The model in fp32, on a device, else the CPU, ready to train. Raises UserError if it does not load.

    fp32 whatever the files hold: transformers 5 keeps their dtype, and fp16 weights cannot be unscaled. Each tensor
    goes to the device as it is read, and what is tried out on the model is then tried there.
    """
    where = {"device_map": {"": device}} if device else {}
    try:
        loaded = head.auto.from_pretrained(
            model.path, revision=model.revision or "main", dtype=torch.float32, **where, **head.settings
        )
    except UNLOADABLE as error:
        raise UserError(loading_fault("model", model.path, error)) from error
    return loss_model(loaded, head)


def loss_model(loaded: Any, head: Head = LANGUAGE) -> LossModel:
    """A model of transformers, ready to train."""
    loaded.train()
    fuse_gelu(loaded)
    return head.wrap(loaded)


def checkpoint_activations(model: LossModel) -> None:
    """Let each layer keep its input alone, and compute the rest again in the backward pass (arXiv 1604.06174).

    The same to the last bit: torch sets its generators back for the second time. Raises UserError if the model cannot.
    """
    # transformers 5.23 has given it another name.
    enable = getattr(model.inner, "activation_checkpointing_enable", None) or model.inner.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})  # re-entrant, it needs an input with a gradient, which frozen layers lack
    except ValueError as error:
        what = f"train.gradient_checkpointing: {type(model.inner).__name__} has no layers that could be computed again."
        raise UserError(Fault("recipe", what, "Remove it.")) from error


def loading_fault(what: str, path: str, error: Exception) -> Fault:
    """What transformers said of a model or tokenizer, in a line."""
    words = str(error).strip().splitlines()
    fix = "Check model.path, and that compute nodes reach the hub if it is a hub id."
    return Fault(path, f"the {what} does not load: {words[0] if words else type(error).__name__}", fix)


def padding_token(tokenizer: Any) -> int:
    """A token for places that attention never sees; any will do."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
