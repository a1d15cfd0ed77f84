"""Text to tokens with their places in it, alike for every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcft.errors import Fault, UserError


@dataclass(frozen=True)
class Tokenized:
    """One text: ids and the end of each token in characters; special tokens end at 0."""

    tokens: list[int]
    ends: list[int]


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[Tokenized]:
    """Ids and character ends of each text, with what the tokenizer puts in front (BOS) and nothing behind."""
    # verbose=False: it warns of texts longer than the model's context, which the caller cuts.
    encoded = tokenizer(list(texts), return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    found = []
    for tokens, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        ends = [end for _, end in offsets]
        while tokens and ends[-1] == 0 and len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id:
            tokens, ends = tokens[:-1], ends[:-1]  # some tokenizers add it; the task decides where it belongs
        found.append(Tokenized(list(tokens), ends))
    return found


def check_tokenizer(tokenizer: Any, path: str, *, ends: bool = True) -> None:
    """Raise UserError if the tokenizer cannot tell the places of its tokens, or has no end-of-text token.

    Where no text has an end that is learnt (`ends`), a token for padding will do.
    """
    if not tokenizer.is_fast:
        raise UserError(Fault(path, "its tokenizer is a slow one, which cannot tell the places of its tokens."))
    if tokenizer.eos_token_id is None and (ends or tokenizer.pad_token_id is None):
        raise UserError(Fault(path, "its tokenizer has no end-of-text token (eos_token)."))
