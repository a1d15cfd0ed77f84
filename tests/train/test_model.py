"""The loss, and what it is equal to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcft.errors import UserError
from hpcft.recipe import Model
from hpcft.train.model import LossModel, load_model
from tests.parts import make_tiny_gpt2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LossModel:
    return load_model(Model(path=str(make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2", dropout=0.0))))


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 400, (3, 12), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    trained = torch.rand((3, 12), generator=generator) < 0.5
    trained[1, 8:] = False
    return tokens, mask, trained


def test_the_loss_is_transformers_own_though_it_projects_only_targets(model: LossModel) -> None:
    tokens, mask, trained = batch()
    assert model.projects_exactly
    labels = tokens.masked_fill(~trained, -100)
    theirs = model.model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
    ours = model(tokens, mask, trained) / trained[:, 1:].sum()
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


def test_a_model_that_changes_its_logits_behind_the_head_is_not_short_cut(model: LossModel) -> None:
    tokens, mask, trained = batch()
    head = model.model.lm_head
    handle = model.model.register_forward_hook(lambda module, inputs, out: setattr(out, "logits", out.logits * 2))
    try:
        capped = LossModel(model.model)
        assert not capped.projects_exactly
        whole = model.model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(
            whole[trained[:, 1:]], tokens[:, 1:][trained[:, 1:]], reduction="sum"
        )
        assert torch.allclose(capped(tokens, mask, trained), expected)
    finally:
        handle.remove()
    assert head is model.model.lm_head


def test_a_micro_batch_without_targets_has_a_loss_of_zero_that_can_go_backward(model: LossModel) -> None:
    tokens, mask, trained = batch()
    loss = model(tokens, mask, torch.zeros_like(trained))
    loss.backward()
    assert loss.item() == 0.0


def test_a_folder_that_holds_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError) as error:
        load_model(Model(path=str(tmp_path)))
    assert str(error.value).startswith(f"{tmp_path}: the model does not load: ")
    assert str(error.value).endswith("Check model.path, and that compute nodes reach the hub if it is a hub id.")
