"""Which label a model names in what it has written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that stands first in a text as words of its own; None if none does.

    Case counts only for labels of one letter: an `A` is meant, an `a` is an article. Of labels that begin at the same
    place the longest is taken. What is said around a label is not understood: "not positive" names positive.

    >>> parse_label(" The mood is **Very  Positive**.", ["positive", "very positive"])
    'very positive'
    """
    pattern, by_words = _finder(tuple(labels))
    found = pattern.search(text)
    return by_words[_key(found[0])] if found else None


@lru_cache(maxsize=8)
def _finder(labels: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    ways = []
    for label in sorted(labels, key=lambda label: len(label.strip()), reverse=True):
        words = r"\s+".join(re.escape(word) for word in label.split())
        ways.append(words if len(label.strip()) == 1 else f"(?i:{words})")
    # Not \b: a label may begin or end with what is no letter, as "+1" does.
    return re.compile(rf"(?<!\w)(?:{'|'.join(ways)})(?!\w)"), {_key(label): label for label in labels}


def _key(words: str) -> str:
    plain = " ".join(words.split())
    return plain if len(plain) == 1 else plain.casefold()
