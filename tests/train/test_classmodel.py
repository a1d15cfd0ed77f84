"""Models with a head of classes: what they read, what of them is trained, and what is left of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from hpcft.data.batches import NO_CLASS, Batch
from hpcft.recipe import Recipe
from hpcft.sections import Lora, Model, Train
from hpcft.train.adapt import frozen_hash, load_adapted, trained_words
from hpcft.train.blueprint import measure, step_of
from hpcft.train.checkpoint import model_tensors
from hpcft.train.classmodel import ClassModel, PairModel, head_of
from hpcft.train.flops import count
from hpcft.train.lora import add_adapters
from hpcft.train.model import checkpoint_activations
from hpcft.train.pair import Pair
from tests.parts import FAMILIES, make_tiny_encoder, make_tiny_gpt2
from tests.train.models import make_tiny_llama, stir

CPU = torch.device("cpu")
LABELS = ["glad", "sad", "so-so"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def model_folder(folder: Path, family: str) -> Path:
    if family == "gpt2":
        return make_tiny_gpt2(folder / family)
    if family == "llama":
        return folder / family if (folder / family).exists() else make_tiny_llama(folder / family)
    return make_tiny_encoder(folder / family, family)


def recipe(path: Path, task: str = "classify", **more: Any) -> Recipe:
    model, data = {"path": str(path), **more.pop("model", {})}, {"train": "rows.jsonl", "max_length": 16}
    if task != "prefer":
        data["labels"] = LABELS
    values = {"name": "a", "task": task, "model": model, "data": data, "resources": {"gpus": 0}, **more}
    return Recipe.model_validate_json(json.dumps(values))


def load(path: Path, task: str = "classify", **more: Any) -> ClassModel:
    made = recipe(path, task, **more)
    model = load_adapted(made, made.model)
    assert isinstance(model, ClassModel)
    return model


def batch_of(lengths: list[int], labels: list[int], pad: int = 0) -> Batch:
    """Rows of random words, padded on the right."""
    chance = torch.Generator().manual_seed(0)
    tokens = torch.full((len(lengths), max(lengths)), pad)
    mask = torch.zeros_like(tokens)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(5, 200, (length,), generator=chance)
        mask[row, :length] = 1
    return {"tokens": tokens, "mask": mask, "labels": torch.tensor(labels)}


def of_rows(model: ClassModel, batch: Batch) -> torch.Tensor:
    """(rows, classes), without dropout."""
    model.eval()
    with torch.no_grad():
        return model.probabilities(**model.inputs(batch, CPU))


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "llama"])
def test_padding_says_nothing(folder: Path, family: str) -> None:
    model = load(model_folder(folder, family))
    stir(model)
    batch = batch_of([7, 3, 5], [0, 1, 2])
    together = of_rows(model, batch)
    alone = [of_rows(model, {name: part[row : row + 1, :length] if part.ndim == 2 else part[row : row + 1]
                             for name, part in batch.items()}) for row, length in enumerate([7, 3, 5])]  # fmt: skip
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert torch.allclose(together.sum(dim=1), torch.ones(3))
    other = {**batch, "tokens": torch.where(batch["mask"] == 1, batch["tokens"], 9 if family != "roberta" else 0)}
    assert torch.allclose(of_rows(model, other), together, atol=1e-6)


def test_a_decoder_reads_the_last_real_token_though_it_be_the_one_of_padding(folder: Path) -> None:
    model = load(model_folder(folder, "gpt2"))
    stir(model)
    batch = batch_of([6, 4], [0, 1], pad=0)
    batch["tokens"][1, 1] = 0  # the separator: the same token as padding, and the row goes on behind it
    plain = model.inner.eval()
    with torch.no_grad():
        first, second = (plain(input_ids=batch["tokens"][row : row + 1, :end]).logits for row, end in ((0, 6), (1, 4)))
        assert torch.allclose(model.scores(batch["tokens"], batch["mask"]), torch.cat([first, second]), atol=1e-5)
        before = model.scores(batch["tokens"], batch["mask"])[1]
        batch["tokens"][1, 1] = 7
        assert not torch.allclose(model.scores(batch["tokens"], batch["mask"])[1], before, atol=1e-3), (
            "it is attended to"
        )


def test_token_types_reach_an_encoder_that_knows_them(folder: Path) -> None:
    batch = batch_of([6], [0])
    told = {**batch, "segments": torch.tensor([[0, 0, 0, 1, 1, 1]])}
    for family, knows in (
        ("bert", True),
        ("electra", True),
        ("distilbert", False),
        ("roberta", False),
        ("gpt2", False),
    ):
        model = load(model_folder(folder, family))
        stir(model)
        assert ("segments" in model.inputs(told, CPU)) == knows
        assert torch.equal(of_rows(model, batch), of_rows(model, told)) != knows


@pytest.mark.parametrize("task", ["classify", "prefer"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_all_that_is_trained_has_a_gradient_so_that_ddp_need_not_look_for_it(
    folder: Path, family: str, task: str
) -> None:
    path = model_folder(folder, family)
    tall = 1 if family == "albert" else 2
    for freeze in ("none", "body", 1, tall):
        model = load(path, task, model={"freeze": freeze})
        loss = model(**model.inputs(model.example(2, 6, 5), CPU))
        loss.backward()
        graded = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert graded == {name for name, parameter in model.named_parameters() if parameter.requires_grad} != set()
        assert (frozen_hash(model) is None) == (freeze == "none")
        if freeze == "body":
            parts = {name.removeprefix("model.").removeprefix("encoder.") for name in graded}
            heads = ("classifier", "pre_classifier", "pooler", f"{family}.pooler", "score", "dense", "out")
            assert all(name.startswith(heads) for name in parts), parts
        elif freeze != "none":
            assert not any("embeddings" in name or ".wte" in name for name in graded)


def test_the_loss_is_summed_over_rows_and_an_empty_micro_batch_has_none(folder: Path) -> None:
    for task in ("classify", "prefer"):
        model = load(model_folder(folder, "bert"), task).eval()
        batch = batch_of([7, 3, 5, 2], [0, 1]) if task == "prefer" else batch_of([7, 3], [0, 1])
        found = of_rows(model, batch)
        loss = model(**model.inputs(batch, CPU))
        assert torch.allclose(loss, -(found[0, 0].log() + found[1, 1].log()), atol=1e-5)
        nothing = model(**model.inputs({**batch, "labels": torch.full((2,), NO_CLASS)}, CPU))
        nothing.backward()
        assert float(nothing.detach()) == 0 and not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_head_begins_the_same_in_every_job_and_other_with_another_seed(folder: Path) -> None:
    for family, task in (("bert", "classify"), ("gpt2", "classify"), ("roberta", "prefer")):
        path = model_folder(folder, family)
        one = load(path, task)
        torch.rand(9)
        two, other = load(path, task), load(path, task, train={"seed": 1})
        assert all(torch.equal(*pair) for pair in zip(one.parameters(), two.parameters(), strict=True))
        differ = [not torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True)]
        assert any(differ) and not all(differ), "the head differs, the body does not"
        drawn = load(path, task, model={"weights": "random"})
        words = [next(module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding))
                 for model in (one, drawn)]  # fmt: skip
        assert not torch.equal(*words)


def test_exchanged_responses_are_what_the_batch_with_them_exchanged_gives(folder: Path) -> None:
    model = load(model_folder(folder, "bert"), "prefer")
    stir(model)
    assert isinstance(model, PairModel)
    model.eval()
    batch = batch_of([7, 3, 5, 2], [0, 1])
    exchanged = {name: part.roll(2, dims=0) if part.ndim == 2 else part for name, part in batch.items()}
    with torch.no_grad():
        there, back = model.both_orders(**model.inputs(batch, CPU))
    assert torch.allclose(there, of_rows(model, batch), atol=1e-6)
    assert torch.allclose(back, of_rows(model, exchanged), atol=1e-6)
    assert not torch.allclose(there, back, atol=1e-2)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "gpt2"])
def test_what_is_left_of_a_pair_is_an_encoders_folder_with_its_head(folder: Path, tmp_path: Path, family: str) -> None:
    model = load(model_folder(folder, family), "prefer")
    stir(model)
    model.write(tmp_path / "left")
    again = PairModel(Pair.from_pretrained(tmp_path / "left"))
    assert again.model.facts == {"labels": ["A", "B", "Tie"], "pair": "apart", "max_length": 16,
                                 "pooled": {"bert": "pooler", "gpt2": "last"}.get(family, "first")}  # fmt: skip
    batch = batch_of([7, 3, 5, 2], [0, 1])
    assert torch.allclose(of_rows(again, batch), of_rows(model, batch), rtol=0, atol=1e-6)
    (tmp_path / "as-it-was").mkdir()
    model.write(tmp_path / "as-it-was", {name: torch.zeros_like(part) for name, part in model_tensors(model).items()})
    assert not any(part.any() for part in Pair.from_pretrained(tmp_path / "as-it-was").dense.parameters())


def test_rank_8_on_a_gpt2_of_classes_trains_442368_parameters_and_its_head() -> None:
    # Of its real shape, 12 layers of width 768; the vocabulary, which has no adapter, is short here.
    config = GPT2Config(vocab_size=64, n_positions=64, bos_token_id=0, eos_token_id=0, num_labels=2)
    head = head_of("entail", recipe(Path("gpt2")).data)
    model = head.wrap(GPT2ForSequenceClassification(config))
    add_adapters(model, Lora(rank=8), Model(path="gpt2"), Train(), head)
    trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapters = {name: size for name, size in trained.items() if ".lora_" in name}
    assert sum(adapters.values()) == 442_368 and len(adapters) == 12 * 3 * 2
    assert {size for name, size in trained.items() if name not in adapters} == {2 * 768}, "and the head, whole"
    assert trained_words(model).startswith(f"trains {442_368 + 2 * 768} of ")


@pytest.mark.parametrize("family", ["gpt2", "bert", "distilbert", "deberta", "deberta-v2"])
def test_adapters_of_classes_load_with_peft_beside_the_plain_model(folder: Path, tmp_path: Path, family: str) -> None:
    path = model_folder(folder, family)
    model = load(path, lora={"rank": 4, "alpha": 7})
    loss = model(**model.inputs(model.example(2, 6, 5), CPU))
    loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    stir(model)
    model.write(tmp_path / "adapter")
    settings = head_of("classify", recipe(path).data).settings
    plain = AutoModelForSequenceClassification.from_pretrained(path, **settings)
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    batch = batch_of([6, 6], [0, 1])
    plain.config.pad_token_id = 0
    with torch.no_grad():
        theirs = loaded(input_ids=batch["tokens"], attention_mask=batch["mask"]).logits.softmax(-1)
    assert torch.allclose(of_rows(model, batch), theirs, atol=1e-5)


@pytest.mark.parametrize("task", ["classify", "prefer"])
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gpt2"])
def test_checkpointed_activations_give_the_same_gradients(folder: Path, family: str, task: str) -> None:
    gradients = []
    for again in (False, True):
        model = load(model_folder(folder, family), task)
        if again:
            checkpoint_activations(model)
        torch.manual_seed(0)  # dropout
        model(**model.inputs(model.example(2, 6, 5), CPU)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "prefer"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_the_estimate_knows_the_model(folder: Path, family: str, task: str) -> None:
    made = recipe(model_folder(folder, family), task, model={"freeze": 1})
    found, model = measure(step_of(made, 2)), load_adapted(made, made.model)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert found.peak["activations"] > 0 and found.peak["logits"] == 0
    more = measure(step_of(made, 4)).peak["activations"]
    assert 1.5 * found.peak["activations"] < more <= 2.1 * found.peak["activations"]


def test_operations_are_counted_for_the_head_once_a_row(folder: Path) -> None:
    # BERT of 2 layers, width 32 and 64: 4 x 32 x 32 + 2 x 32 x 64 weights a layer, below a pooler and a head of three.
    found = count(load(model_folder(folder, "bert")).model, classes=True)
    assert found is not None
    assert (found.token, found.target) == (6 * 2 * (4 * 32 * 32 + 2 * 32 * 64), 6 * (32 * 32 + 32 * 3))
    pair = count(load(model_folder(folder, "bert"), "prefer").model, classes=True)
    assert pair is not None and pair.token == found.token
    assert count(load(model_folder(folder, "deberta-v2")).model, classes=True) is None, "attends to places too"
    decoder = count(load(model_folder(folder, "gpt2")).model, classes=True)
    assert decoder is not None and decoder.target == 6 * 32 * 3
