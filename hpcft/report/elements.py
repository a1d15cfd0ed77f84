"""The few elements that the sections of a report are made of, as HTML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PATH = re.compile(r"(?<![\w.:/~-])~?/(?:[^\s/:,;'\"()]+/)+([^\s/:,;'\"()]*)")


def text(value: object) -> str:
    """What a person or a file has written, as HTML that shows it and does nothing else."""
    return html.escape(str(value))


def short_paths(words: str) -> str:
    """The words with each path by its last part alone: whose disk it lay on is nobody's business.

    >>> short_paths("/scratch/me/gpt2-xl: the model does not load; see https://hpcft.org/a/b")
    'gpt2-xl: the model does not load; see https://hpcft.org/a/b'
    """
    return PATH.sub(r"\1", words)


def section(name: str, title: str, *content: str, lead: str = "") -> str:
    """A section that the page's own links lead to; an empty one is left out."""
    if not any(content):
        return ""
    words = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{words}\n{"".join(content)}\n</section>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), foot: str = "") -> str:
    """A table whose cells are HTML already; `numbers` are the columns that stand to the right."""

    def line(cells: Sequence[str], kind: str) -> str:
        sides = [' class="number"' if index in numbers else "" for index in range(len(cells))]
        return "".join(f"<{kind}{side}>{cell}</{kind}>" for side, cell in zip(sides, cells, strict=True))

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{line([text(name) for name in columns], 'th')}</tr></thead>"
    below = f"<tfoot>{foot}</tfoot>" if foot else ""
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody>{below}</table></div>\n'


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they are, in two columns; what is empty is left out."""
    lines = (f"<div><dt>{text(name)}</dt> <dd>{text(value)}</dd></div>" for name, value in pairs.items() if value)
    return f'<dl class="facts">{"".join(lines)}</dl>\n'


def tile(name: str, value: str, more: str = "") -> str:
    """One number that is to be seen first."""
    below = f"<small>{text(more)}</small>" if more else ""
    return f'<div class="tile"><span>{text(name)}</span><b>{text(value)}</b>{below}</div>'


def image(path: Path, words: str) -> str:
    """A picture that the page carries in itself; nothing where there is none."""
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except FileNotFoundError:
        return ""
    return f'<img src="data:image/png;base64,{data}" alt="{text(words)}">'


def code(words: str) -> str:
    """Lines as they were written."""
    return f"<pre>{text(words.strip(chr(10)))}</pre>\n"
