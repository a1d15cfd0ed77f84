"""Prompt templates: Markdown with `{{column}}` placeholders, read alike before the queue and in the job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLACEHOLDER = re.compile(r"\{\{\s*([^{}\s](?:[^{}]*?[^{}\s])?)\s*\}\}")
HALF = re.compile(r"\{\{\s*[\w-]+[^\S\n]*(?:\}(?!\})|\n|\Z)|(?<!\{)\{\s*[\w-]+\s*\}\}")
"""A placeholder that lacks a brace: as text it would hide a column from the model, and nobody would know."""


@dataclass(frozen=True)
class PromptTemplate:
    """Text around columns. The last placeholder is the completion, which the model learns to write."""

    text: str

    @property
    def columns(self) -> list[str]:
        """Columns that a row must have, the completion's last."""
        return PLACEHOLDER.findall(self.text)

    @property
    def completion(self) -> str:
        """The completion's column."""
        return self.columns[-1]

    def fault(self) -> str | None:
        """What makes this text no template, in words; None if it is one."""
        matches = list(PLACEHOLDER.finditer(self.text))
        if half := HALF.search(self.text):
            return f"has a placeholder that lacks a brace: {half[0].strip()}"
        if not matches:
            return "has no {{column}} placeholder"
        if self.text[matches[-1].end() :].strip():
            return f"has text behind its last placeholder {matches[-1][0]}, which is the completion"
        if not self.text[: matches[-1].start()].strip():
            return "has no prompt before its only placeholder"
        if self.completion in self.columns[:-1]:
            return f'shows the completion "{self.completion}" in the prompt already'
        return None

    def render(self, row: Mapping[str, object]) -> tuple[str, str]:
        """Prompt and completion of one row.

        >>> PromptTemplate("Tweet: {{text}}\\nMood: {{label}}").render({"text": "hi", "label": "glad"})
        ('Tweet: hi\\nMood: ', 'glad')

        Values go in as they are: a `{{` inside a value is text, not a placeholder. Raises KeyError for a column
        that the row lacks.
        """
        last = list(PLACEHOLDER.finditer(self.text))[-1]
        prompt = PLACEHOLDER.sub(lambda match: str(row[match[1]]), self.text[: last.start()])
        return prompt, str(row[last[1]])


def read_template(path: Path) -> PromptTemplate:
    """The template in a file. Raises OSError and UnicodeDecodeError as reading does."""
    return PromptTemplate(path.read_text(encoding="utf-8"))
