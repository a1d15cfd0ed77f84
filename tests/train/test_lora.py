"""Adapters: how many, where, in which bits, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hpcft.errors import UserError
from hpcft.sections import Lora, Model, Train
from hpcft.train.adapt import frozen_hash, trained_words
from hpcft.train.checkpoint import model_tensors
from hpcft.train.lora import add_adapters, hold_in_half
from hpcft.train.model import LossModel
from tests.parts import make_tiny_gpt2
from tests.train.models import check_gradients, load, logits, loss, make_tiny_llama, stir


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama") / "model")


def test_rank_8_on_gpt2_trains_442368_parameters() -> None:
    # Of its real shape, 12 layers of width 768; the vocabulary, which has no adapter, is short here.
    model = LossModel(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, bos_token_id=0, eos_token_id=0)))
    add_adapters(model, Lora(rank=8), Model(path="gpt2"), Train())
    assert trained_words(model).startswith("trains 442368 of ")


def test_gpt2_taken_apart_is_the_same_model(gpt2: Path) -> None:
    whole = logits(AutoModelForCausalLM.from_pretrained(gpt2))
    assert torch.allclose(logits(load(gpt2, lora={})), whole, rtol=0, atol=1e-6)


def test_adapters_alone_are_trained_and_saved_and_begin_alike(gpt2: Path) -> None:
    model, again, other = load(gpt2, lora={}), load(gpt2, lora={}), load(gpt2, lora={}, train={"seed": 1})
    names = check_gradients(model)
    assert len(names) == 2 * 3 * 2 and all(".lora_" in name for name in names)
    saved = [model_tensors(one) for one in (model, again, other)]
    assert set(saved[0]) == names
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in names)
    assert any(not torch.equal(saved[0][name], saved[2][name]) for name in names)
    assert frozen_hash(model) == frozen_hash(other)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"], ["k_proj", "c_proj"], ["c_attn"]])
def test_the_folder_of_a_gpt2_loads_beside_the_plain_model(
    gpt2: Path, tmp_path: Path, targets: list[str] | None
) -> None:
    model = load(gpt2, lora={"rank": 4, "alpha": 7, "targets": targets})
    before = logits(model)
    stir(model)
    model.write(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2), tmp_path / "adapter")
    assert torch.allclose(logits(loaded), logits(model), rtol=0, atol=1e-5)
    assert not torch.allclose(before, logits(model), atol=1e-2)


def test_other_families_have_adapters_on_what_they_call_query_key_and_value(llama: Path, tmp_path: Path) -> None:
    model = load(llama, lora={"dropout": 0.1})
    assert {name.split(".")[-4] for name in check_gradients(model)} == {"q_proj", "k_proj", "v_proj"}
    assert model.projects_exactly
    stir(model)
    model.write(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "adapter")
    assert torch.allclose(logits(loaded), logits(model), rtol=0, atol=1e-5)


def test_a_target_that_is_not_there_is_refused_with_those_that_are(gpt2: Path, llama: Path) -> None:
    with pytest.raises(UserError) as error:
        load(gpt2, lora={"targets": ["q_proj", "query", "lm_head"]})
    there = "It has c_fc, c_proj, k_proj, q_proj, v_proj."
    assert str(error.value).splitlines() == [
        f'recipe: lora.targets: no linear module is called "query". {there}',
        f'recipe: lora.targets: no linear module is called "lm_head". {there}',
    ]


def test_matrices_held_in_half_give_the_same_bits(gpt2: Path, llama: Path) -> None:
    for folder in (gpt2, llama):
        results = []
        for half in (False, True):
            model = load(folder, lora={}).eval()
            stir(model)
            if half:
                before = sum(parameter.nbytes for parameter in model.parameters())
                hold_in_half(model, "bf16")
                assert sum(parameter.nbytes for parameter in model.parameters()) < before
            with torch.autocast("cpu", torch.bfloat16):
                summed = loss(model)
            summed.backward()
            results.append([summed, *(p.grad for p in model.parameters() if p.requires_grad)])
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_checkpointed_activations_give_adapters_the_same_gradients(gpt2: Path) -> None:
    plain, again = load(gpt2, lora={}), load(gpt2, lora={})
    again.model.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (plain, again):
        torch.manual_seed(0)  # dropout
        check_gradients(model)
    for ours, theirs in zip(plain.parameters(), again.parameters(), strict=True):
        assert (ours.grad is None and theirs.grad is None) or torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_quantised_weights_stay_and_the_adapters_beside_them_learn(llama: Path, gpt2: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    for folder, width in ((gpt2, 32), (llama, 32)):
        model = load(folder, model={"quantize": bits}, lora={})
        assert trained_words(model).split()[1] == trained_words(load(folder, lora={})).split()[1]
        whole, ours = logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model)
        assert 1e-5 < (whole - ours).abs().max() < 0.3 * whole.abs().max(), "near, and not the same"
        kinds = {type(module).__name__ for module in model.modules() if getattr(module, "in_features", 0) == width}
        assert kinds == {"Linear4bit" if bits == "nf4" else "Linear8bitLt", "Linear"}
        frozen = frozen_hash(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        losses = []
        for _ in range(5):
            logits(model)  # an evaluation in between changes nothing
            check_gradients(model)
            losses.append(float(loss(model).detach()))
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0] and frozen_hash(model) == frozen
        assert frozen_hash(load(folder, model={"quantize": bits}, lora={})) == frozen
