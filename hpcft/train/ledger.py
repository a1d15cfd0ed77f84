"""The ledger: bytes of all tensors that live, by kind, while something runs; and what they were at their peak."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

KINDS = ("weights", "gradients", "copies", "logits", "activations")
"""`copies` are those in 16 bits that mixed precision makes of weights; `activations` all that is nothing else."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is allocated within its context, of real tensors as of fake ones, which have a size alone.

    A storage counts once, however many views it has, from the operation that brings it until nobody holds it.
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary = vocabulary
        self.live = dict.fromkeys(KINDS, 0)
        self.peak: Mapping[str, int] = dict(self.live)
        self.kinds: dict[int, str] = {}
        """Of each storage that lives."""
        self.enter(model.parameters(), "weights")
        self.enter(model.buffers(), "weights")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._learnt)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_iter(out) if isinstance(tensor, Tensor)]
        copied = func is torch.ops.aten._to_copy.default and self._kind(args[0]) == "weights"
        for tensor in made:
            kind = "copies" if copied else "logits" if self._is_logits(tensor) else "activations"
            self.enter([tensor], kind)
        return out

    def enter(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Count these, as far as their storages are new."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.kinds:
                continue
            size = storage.nbytes()
            self.kinds[key] = kind
            self.live[kind] += size
            weakref.finalize(storage, self._leave, key, size)
        if sum(self.live.values()) > sum(self.peak.values()):
            self.peak = dict(self.live)

    def _leave(self, key: int, size: int) -> None:
        self.live[self.kinds.pop(key)] -= size

    def _kind(self, tensor: Tensor) -> str | None:
        return self.kinds.get(tensor.untyped_storage()._cdata)

    def _is_logits(self, tensor: Tensor) -> bool:
        return tensor.ndim == 2 and tensor.shape[1] == self.vocabulary

    def _learnt(self, parameter: Tensor) -> None:
        """A gradient has come to stay: it was taken for an activation while it was computed."""
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        if (kind := self._kind(parameter.grad)) not in (None, "gradients"):
            self.live[str(kind)] -= storage.nbytes()
            self.live["gradients"] += storage.nbytes()
            self.kinds[storage._cdata] = "gradients"
