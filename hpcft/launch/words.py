"""How numbers and times are said: used wherever hpcft speaks to a person."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def duration(seconds: float | None) -> str:
    """`1:02:03`, or a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def clock(seconds: float | None) -> str:
    """`2026-11-22 05:57`, in the time of this machine; `an unknown time` for None."""
    return "an unknown time" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def count(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    if number == 1:
        return f"1 {word}"
    return f"{number} {word}{'es' if word.endswith(('s', 'h')) else 's'}"


def amount(size: float) -> str:
    """`1.2 GB` for 1234567890 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def tracker_words(tracker: Mapping[str, Any]) -> str:
    """`wandb has the curve to step 1200, as 3f2a9c1e`, and why it has no more, where it did not take it."""
    has = f"has the curve to step {tracker['step']}" if tracker["step"] >= 0 else "has no points yet"
    called = f", as {tracker['id']}" if tracker["id"] else ""
    fault = f". It did not take more: {tracker['fault']}" if tracker["fault"] else ""
    return f"{tracker['name']} {has}{called}{fault}"
