"""The frame: what the tokenizer puts before, between and behind the texts of a row that is read as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hpcft.errors import Fault, UserError


@dataclass(frozen=True)
class Frame:
    """Special tokens around one text, or around and between two."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]
    kinds: tuple[int, ...] | None = None
    """Token types of what stands before, of the first text, between, of the second and behind; None where all are 0."""
    length: int = 512
    """Tokens of the whole at most."""

    def around(self, texts: Sequence[Sequence[int]]) -> tuple[list[int], list[int] | None]:
        """Tokens of one or two texts in this frame, and their types; the middle of what is too long is left out.

        BERT's, with 101 before and 102 between and behind: [[7, 8], [9]] gives [101, 7, 8, 102, 9, 102] with types
        [0, 0, 0, 0, 1, 1].
        """
        special = len(self.before) + len(self.between) + len(self.behind)
        first, *rest = fit(texts, self.length - special)
        parts = [self.before, first, self.between, rest[0] if rest else [], self.behind]
        tokens = [token for part in parts for token in part]
        if self.kinds is None:
            return tokens, None
        return tokens, [kind for part, kind in zip(parts, self.kinds, strict=True) for _ in part]


def fit(texts: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """One or two texts with `room` tokens in all at most: the longer one gives first, and each gives of its middle.

    Both ends stay, since a question or a conclusion stands there (arXiv 1905.05583, 5.3.1).

    >>> fit([[1, 2, 3, 4, 5, 6], [7]], 5)
    [[1, 2, 5, 6], [7]]
    """
    sizes = [len(text) for text in texts]
    if sum(sizes) > room and len(texts) == 1:
        sizes = [room]
    elif sum(sizes) > room:
        shorter = min(*sizes, room // 2)
        sizes = [room - shorter, shorter] if sizes[0] >= sizes[1] else [shorter, room - shorter]
    return [_ends(text, size) for text, size in zip(texts, sizes, strict=True)]


def _ends(text: Sequence[int], size: int) -> list[int]:
    """So many tokens of both ends; of an odd number one more of the beginning."""
    if len(text) <= size:
        return list(text)
    behind = size // 2
    return [*text[: size - behind], *text[len(text) - behind :]]


def frame_of_one(tokenizer: Any, length: int) -> Frame:
    """The frame of a single text: [CLS] and [SEP] of an encoder, nothing or a BOS of a decoder."""
    found = tokenizer.backend_tokenizer.encode("a")
    own = [place for place, special in enumerate(found.special_tokens_mask) if not special]
    behind = found.ids[own[-1] + 1 :] if _is_encoders(tokenizer) else []
    return _checked(Frame(tuple(found.ids[: own[0]]), (), tuple(behind), None, length), 1)


def frame_of_two(tokenizer: Any, length: int, separator: str | int | None = None) -> Frame:
    """The frame of two texts: the tokenizer's own of an encoder, else its end-of-text token between them.

    A separator of the recipe's, a text or the number of a token, stands between them in place of that, and both are
    then one text to an encoder. Raises UserError: there is no such token, or no room for texts.
    """
    if separator is None and _is_encoders(tokenizer):
        found = tokenizer.backend_tokenizer.encode("a", "a")
        first, second = ([place for place, text in enumerate(found.sequence_ids) if text == which] for which in (0, 1))
        cuts = [0, first[0], first[-1] + 1, second[0], second[-1] + 1, len(found.ids)]
        before, _, between, _, behind = (tuple(found.ids[a:b]) for a, b in pairwise(cuts))
        kinds = tuple(found.type_ids[place] for place in (cuts[0], cuts[1], cuts[2], cuts[3], cuts[4]))
        told = "token_type_ids" in tokenizer.model_input_names and any(kinds)
        return _checked(Frame(before, between, behind, kinds if told else None, length), 2)
    one = frame_of_one(tokenizer, length)
    if separator is None:
        separator = int(tokenizer.eos_token_id)
    if isinstance(separator, int):
        if tokenizer.backend_tokenizer.id_to_token(separator) is None:
            what = f"data.separator = {separator}: the tokenizer has no token of this number."
            raise UserError(Fault("recipe", what, "Write one that it has, or a text in quotes."))
        between = (separator,)
    else:
        between = tuple(tokenizer(separator, add_special_tokens=False)["input_ids"])
    return _checked(Frame(one.before, between, one.behind, None, length), 2)


def _checked(frame: Frame, texts: int) -> Frame:
    special = len(frame.before) + len(frame.between) + len(frame.behind)
    if frame.length < special + texts:
        what = f"data.max_length = {frame.length}: {special} tokens around the texts leave no room for them."
        raise UserError(Fault("recipe", what, f"Write {special + texts} at least."))
    return frame


def _is_encoders(tokenizer: Any) -> bool:
    """Whether this tokenizer is an encoder's, which has a token between texts."""
    return tokenizer.sep_token_id is not None
