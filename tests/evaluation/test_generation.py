"""Completions: of a batch as of each prompt alone, drawn from a seed, and of prompts cut up as training cuts them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.errors import UserError
from hpcft.evaluation.generation import complete, make_config, prompt_tokens, room
from hpcft.sections import Generate
from hpcft.tasks.tokenize import tokenize
from tests.parts import make_tiny_gpt2
from tests.train.models import make_tiny_llama

PROMPTS = [
    "The queue",
    "In Graz the gradient depends on the loss curve, which the log shows. The batch",
    "A node waits",
]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model of each family, and its tokenizer."""
    folder = tmp_path_factory.mktemp("parts") / request.param
    (make_tiny_gpt2 if request.param == "gpt2" else make_tiny_llama)(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():  # random weights are almost indifferent between tokens, and repeat themselves
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model, AutoTokenizer.from_pretrained(folder)


def write(parts: tuple[Any, Any], prompts: list[str], seed: int = 0, **settings: Any) -> list[list[int]]:
    model, tokenizer = parts
    generate = Generate(max_new_tokens=12, **settings)
    config = make_config(model, tokenizer, generate, tokenizer.eos_token_id)
    return complete(model.generate, model.device, config, prompt_tokens(tokenizer, prompts), seed)


def test_a_batch_is_written_as_each_prompt_alone_whatever_stands_before_it_as_padding(parts: tuple[Any, Any]) -> None:
    together = write(parts, PROMPTS)
    assert together == [write(parts, [prompt])[0] for prompt in PROMPTS]
    model, tokenizer = parts
    for prompt, written in zip(PROMPTS, together, strict=True):  # and greedy is the likeliest token each time
        tokens = prompt_tokens(tokenizer, [prompt])[0]
        for token in written:
            with torch.no_grad():
                assert int(model(torch.tensor([tokens])).logits[0, -1].argmax()) == token
            tokens = [*tokens, token]
    assert len({tuple(one) for one in together}) == 3


def test_what_is_drawn_depends_on_the_seed_alone_and_touches_no_other_randomness(parts: tuple[Any, Any]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = write(parts, PROMPTS, seed=1, temperature=1.5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert write(parts, PROMPTS, seed=1, temperature=1.5) == first
    assert write(parts, PROMPTS, seed=2, temperature=1.5) != first
    greedy = write(parts, PROMPTS)
    assert write(parts, PROMPTS, seed=1, temperature=1.5, top_k=1) == greedy != first
    assert write(parts, PROMPTS, seed=1, temperature=1.5, top_p=1e-6) == greedy


def test_what_the_model_itself_would_set_is_set_aside(parts: tuple[Any, Any]) -> None:
    model, _ = parts
    greedy, kept = write(parts, PROMPTS), model.generation_config
    end = greedy[0][-1]
    try:
        model.generation_config = type(kept)(
            do_sample=True, temperature=3.0, top_k=5, repetition_penalty=3.0, eos_token_id=end
        )
        cut = [one[: one.index(end)] if end in one else one for one in greedy]
        assert write(parts, PROMPTS) == cut != greedy, "its own token that ends a text still does, and nothing else"
    finally:
        model.generation_config = kept


@pytest.mark.parametrize("end", ["", " ", "\n", "\n\n", ":\n  ", "\t"])
def test_a_prompt_is_cut_up_as_it_is_before_a_completion_in_training(parts: tuple[Any, Any], end: str) -> None:
    _, tokenizer = parts
    prompt = f"Who waits for the node?{end}"
    [whole] = tokenize(tokenizer, [prompt + "The queue"])
    before = [token for token, last in zip(whole.tokens, whole.ends, strict=True) if last <= len(prompt)]
    assert prompt_tokens(tokenizer, [prompt], ["The queue"]) == [before]
    [shown] = prompt_tokens(tokenizer, [prompt])
    assert shown == whole.tokens[: len(shown)], "whatever follows"
    assert tokenizer.decode(shown).rstrip() == prompt.rstrip()


def test_a_prompt_leaves_room_for_its_completion(parts: tuple[Any, Any]) -> None:
    model, _ = parts
    positions = model.config.max_position_embeddings
    assert room(model, Generate(max_new_tokens=12)) == positions - 12
    assert room(model, Generate(max_new_tokens=positions - 1)) == 1
    with pytest.raises(UserError) as error:
        room(model, Generate(max_new_tokens=positions))
    assert str(error.value) == (
        f"max_new_tokens = {positions}: the model has {positions} positions, of which a prompt needs one. "
        f"Write {positions - 1} at most."
    )


def test_behind_no_prompt_at_all_a_text_begins(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    assert prompt_tokens(tokenizer, ["", "Who"])[0] == [tokenizer.eos_token_id]
