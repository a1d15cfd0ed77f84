"""The loss, and what it is equal to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.activations import NewGELUActivation

from hpcft.data.batches import Batch
from hpcft.errors import UserError
from hpcft.sections import Model
from hpcft.train.model import LossModel, load_model, load_tokenizer, packed_positions, packs_exactly
from tests.parts import make_tiny_gpt2, train_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LossModel:
    return load_model(Model(path=str(make_tiny_gpt2(tmp_path_factory.mktemp("model") / "gpt2", dropout=0.0))))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 400, (3, 12), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    trained = torch.rand((3, 12), generator=generator) < 0.5
    trained[1, 8:] = False
    return {"tokens": tokens, "mask": mask, "trained": trained}


def loss_of(model: LossModel, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(**model.inputs(batch, torch.device("cpu")))
    return loss


def theirs(model: LossModel, batch: Batch) -> torch.Tensor:
    """transformers' own loss, a mean."""
    labels = batch["tokens"].masked_fill(~batch["trained"], -100)
    out = model.model(input_ids=batch["tokens"], attention_mask=batch["mask"], labels=labels, use_cache=False)
    loss: torch.Tensor = out.loss
    return loss


def gradient(model: LossModel, loss: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("at_once", [1 << 26, 500 * 3])
def test_the_loss_is_transformers_own_though_it_projects_only_targets_a_few_at_a_time(
    model: LossModel, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    some = batch()
    targets = int(some["trained"][:, 1:].sum())
    monkeypatch.setattr("hpcft.train.model.LOGITS_AT_ONCE", at_once)
    ours = loss_of(model, some) / targets
    assert model.projects_exactly
    assert not model.needs_mask
    assert torch.allclose(ours, theirs(model, some), rtol=1e-6, atol=0)
    assert torch.allclose(gradient(model, ours), gradient(model, theirs(model, some)), rtol=1e-4, atol=1e-6)


def test_a_model_that_changes_its_logits_behind_the_head_is_not_short_cut(model: LossModel) -> None:
    some = batch()
    handle = model.model.register_forward_hook(lambda module, inputs, out: setattr(out, "logits", out.logits * 2))
    try:
        capped = LossModel(model.model)
        assert not capped.projects_exactly
        trained = some["trained"][:, 1:]
        whole = model.model(input_ids=some["tokens"], attention_mask=some["mask"]).logits[:, :-1]
        expected = F.cross_entropy(whole[trained], some["tokens"][:, 1:][trained], reduction="sum")
        assert torch.allclose(loss_of(capped, some), expected)
    finally:
        handle.remove()


def test_a_model_that_looks_ahead_gets_a_mask(model: LossModel) -> None:
    def mix(module: object, inputs: object, out: Any) -> None:
        out.logits = out.logits + out.logits.mean(dim=1, keepdim=True)

    handle = model.model.register_forward_hook(mix)
    try:
        looking = LossModel(model.model)
        assert looking.needs_mask
        assert looking.inputs(batch(), torch.device("cpu"))["mask"] is not None
    finally:
        handle.remove()


def test_a_micro_batch_without_targets_has_a_loss_of_zero_that_can_go_backward(model: LossModel) -> None:
    some = batch()
    loss = loss_of(model, {**some, "trained": torch.zeros_like(some["trained"])})
    loss.backward()
    assert loss.item() == 0.0


def llama() -> LossModel:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return LossModel(LlamaForCausalLM(LlamaConfig(vocab_size=400, num_key_value_heads=2, **sizes)))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_packed_into_one_line_have_the_loss_and_gradient_of_rows_apart(model: LossModel, family: str) -> None:
    model = model if family == "gpt2" else llama()
    assert packs_exactly(model)
    some = batch()
    some["trained"][:, 0] = False
    rows = [(some["tokens"][0], 12), (some["tokens"][1], 8), (some["tokens"][2], 12)]
    line = {
        "tokens": torch.cat([row[:length] for row, length in rows] + [torch.zeros(3, dtype=torch.long)])[None],
        "mask": torch.tensor([[1] * 12 + [2] * 8 + [3] * 12 + [0] * 3]),
        "trained": torch.cat([some["trained"][0], some["trained"][1, :8], some["trained"][2], torch.zeros(3).bool()])[
            None
        ],
    }
    apart, packed = loss_of(model, some), loss_of(model, line)
    assert torch.allclose(packed, apart, rtol=1e-5)
    assert torch.allclose(gradient(model, packed), gradient(model, apart), rtol=1e-3, atol=1e-5)


def test_a_model_whose_rows_would_see_each_other_is_found(model: LossModel) -> None:
    attention = model.model.transformer.h[0].attn
    kept = attention.forward

    def look_everywhere(hidden: torch.Tensor, *arguments: object, **more: Any) -> object:
        return kept(hidden, *arguments, **{**more, "attention_mask": None})

    attention.forward = look_everywhere
    try:
        assert not packs_exactly(model)
    finally:
        del attention.forward


def test_positions_begin_anew_with_each_row_of_a_line() -> None:
    mask = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1, 2, 3, 3, 3, 3, 3]])
    assert packed_positions(mask).tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 0, 0, 1, 2, 3, 4]]


def test_gelu_is_the_same_function_in_one_kernel(tmp_path: Path) -> None:
    folder = make_tiny_gpt2(tmp_path / "gpt2", dropout=0.0)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    fused = load_model(Model(path=str(folder))).model
    assert any(isinstance(part, NewGELUActivation) for part in plain.modules())
    assert not any(isinstance(part, NewGELUActivation) for part in fused.modules())
    tokens = torch.arange(9)[None]
    assert torch.allclose(plain(tokens).logits, fused(tokens).logits, atol=1e-6)
    fused.save_pretrained(tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config.activation_function == "gelu_new"


def test_a_folder_that_holds_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError) as error:
        load_model(Model(path=str(tmp_path)))
    assert str(error.value).startswith(f"{tmp_path}: the model does not load: ")
    assert str(error.value).endswith("Check model.path, and that compute nodes reach the hub if it is a hub id.")


def test_a_tokenizer_whose_file_asks_for_padding_and_a_cut_does_neither(tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=64, pad_id=0)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.save_pretrained(tmp_path)
    text = "a node waits for the queue, and the queue for the node"
    found = load_tokenizer(Model(path=str(tmp_path))).backend_tokenizer.encode(text).ids
    assert found == train_tokenizer().backend_tokenizer.encode(text).ids
    assert len(found) > 4
