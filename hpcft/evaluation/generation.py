"""Completions of prompts by transformers' own `generate`: many at a time, padded on the left, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from hpcft.errors import Fault, UserError
from hpcft.sections import Generate
from hpcft.tasks.tokenize import tokenize

PROBES = ("a", "The")
"""Beginnings of a completion."""


def prompt_tokens(tokenizer: Any, prompts: Sequence[str], probes: Sequence[str] = PROBES) -> list[list[int]]:
    """Ids of each prompt as they stand before a completion in training, where both were tokenised as one text.

    Blanks at a prompt's end may belong to the completion's first token there (" positive"), or be cut up otherwise
    ("\\n\\n"). So a prompt that ends in blanks is tokenised with each of the probes behind it, beginnings of
    completions; of the tokens that end before them the fewest are taken, since the model can write a blank itself.
    """
    # Of no prompt at all there would be nothing to write behind; a text begins where another has ended.
    found = [text.tokens or [tokenizer.eos_token_id] for text in tokenize(tokenizer, prompts)]
    blank = [place for place, prompt in enumerate(prompts) if prompt[-1:].isspace()]
    for place in blank:
        end = len(prompts[place])
        texts = tokenize(tokenizer, [prompts[place] + probe for probe in probes])
        inside = [[token for token, last in zip(text.tokens, text.ends, strict=True) if last <= end] for text in texts]
        found[place] = min(inside, key=len)
    return found


def make_config(model: Any, tokenizer: Any, generate: Generate, pad: int) -> GenerationConfig:
    """The settings for `generate`, none of them left to what the model brings but the tokens that end a text."""
    ends = model.generation_config.eos_token_id
    known = [ends] if isinstance(ends, int) else list(ends or [])
    drawing = generate.temperature > 0
    chances: dict[str, Any] = {
        "temperature": generate.temperature,
        "top_k": generate.top_k or 0,  # which means: among all
        "top_p": generate.top_p or 1.0,
    }
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=generate.max_new_tokens,
        do_sample=drawing,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=list(dict.fromkeys([tokenizer.eos_token_id, *known])),
        pad_token_id=pad,
        use_cache=True,
        **(chances if drawing else {}),
    )


def complete(
    generate: Callable[..., torch.Tensor],
    device: torch.device,
    config: GenerationConfig,
    prompts: Sequence[Sequence[int]],
    seed: int,
    **more: Any,
) -> list[list[int]]:
    """Ids of each completion, without the token that ended it; `generate` is the model's, which `more` goes to.

    The prompts stand one below the other with padding before them, which is not attended to, so that what is written
    for each is what would be written for it alone but for rounding. The caller's randomness stays as it was.
    """
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), longest), int(config.pad_token_id))
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with _drawing(device, seed), torch.no_grad():
        given = {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}
        written = generate(**given, generation_config=config, **more)
    ends = set(config.eos_token_id)
    return [_until(row, ends) for row in written[:, longest:].tolist()]


def room(model: Any, generate: Generate) -> int | None:
    """Tokens that a prompt may have so that its completion still has a position; None where any number may.

    Raises UserError: none has.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions <= generate.max_new_tokens:
        what = f"the model has {positions} positions, of which a prompt needs one."
        where = f"max_new_tokens = {generate.max_new_tokens}"
        raise UserError(Fault(where, what, f"Write {positions - 1} at most."))
    return None if positions is None else int(positions) - generate.max_new_tokens


def _until(tokens: Sequence[int], ends: set[int]) -> list[int]:
    """The tokens before the first that ends a text."""
    return [*tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]]


@contextmanager
def _drawing(device: torch.device, seed: int) -> Iterator[None]:
    """Randomness from a seed within, and afterwards the same as before."""
    cuda = device.type == "cuda"
    exact = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.manual_seed(seed)
        # top_p adds up probabilities, for which CUDA has no algorithm that torch calls deterministic (2.13).
        torch.use_deterministic_algorithms(exact and not cuda)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(exact)
