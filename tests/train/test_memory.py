"""Less memory for the same bits."""

from __future__ import annotations

from pathlib import Path

import torch

from hpcft.data.randomness import set_randomness
from hpcft.sections import Model
from hpcft.train.model import checkpoint_activations, load_model
from tests.parts import make_tiny_gpt2


def test_activations_computed_again_give_the_same_bits_with_dropout_and_are_not_kept(tmp_path: Path) -> None:
    path = make_tiny_gpt2(tmp_path / "model", dropout=0.3)

    def learn(again: bool) -> tuple[list[torch.Tensor], int]:
        model = load_model(Model(path=str(path)))
        if again:
            checkpoint_activations(model)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        set_randomness(0, "step", 1)
        tokens = torch.arange(40).reshape(2, 20)
        places = torch.arange(19)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(tokens, places, places + 1)
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters())], sum(kept.values())

    (ours, little), (theirs, much) = learn(True), learn(False)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert little < 0.7 * much
