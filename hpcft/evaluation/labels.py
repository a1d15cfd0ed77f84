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
    pattern, ordered = _finder(tuple(labels))
    found = pattern.search(text)
    return ordered[int(found.lastindex or 0) - 1] if found else None


@lru_cache(maxsize=8)
def _finder(labels: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """A group for each label, and the labels in the order of the groups, the longest first."""
    ordered = sorted(labels, key=lambda label: len(label.strip()), reverse=True)
    ways = []
    for label in ordered:
        words = r"\s+".join(re.escape(word) for word in label.split())
        ways.append(f"({words})" if len(label.strip()) == 1 else f"((?i:{words}))")
    # Not \b: a label may begin or end with what is no letter, as "+1" does.
    return re.compile(rf"(?<!\w)(?:{'|'.join(ways)})(?!\w)"), ordered
