"""The env as files that conda and pip install from, and what of it has changed since they were written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcft.launch.envfacts import normal

DECIDING = frozenset(
    {"torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "pandas", "safetensors", "peft"}
    | {"bitsandbytes", "triton", "python"}
)
"""Packages that decide the bits of a training; CUDA's own, `nvidia-…`, are among them too."""


def explicit(prefix: Path) -> list[str]:
    """Address of every package that conda has put there, as `conda list --explicit --md5`; empty for a venv."""
    urls = []
    for path in sorted(prefix.glob("conda-meta/*.json")):
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and (url := record.get("url")):
            urls.append(f"{url}#{record['md5']}" if record.get("md5") else url)
    return urls


def versions(prefix: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """Version by package of all that the env has: conda's, those of its python, and python itself."""
    found = {}
    for path in prefix.glob("conda-meta/*.json"):  # openssl-3.2.1-hd590300_0.json
        name, _, version = path.stem.rpartition("-")[0].rpartition("-")
        if name:
            found[normal(name)] = version
    return {**found, **facts["packages"], "python": facts["python"]}


def write_lock(folder: Path, prefix: Path, facts: Mapping[str, Any], indices: Iterable[str] = ()) -> list[Path]:
    """The files of the lock: conda.txt for `conda create --file`, pip.txt for `pip install --no-deps -r`.

    `indices` are the lines that say where pip finds its packages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    urls, written = explicit(prefix), []
    if urls:
        head = "# conda create --prefix PREFIX --file conda.txt\n@EXPLICIT\n"
        written.append(_write(folder / "conda.txt", head, urls))
    head = f"# python {facts['python']}: pip install --no-deps -r pip.txt\n"
    written.append(_write(folder / "pip.txt", head, [*indices, *facts["freeze"]]))
    return written


def _write(path: Path, head: str, lines: Iterable[str]) -> Path:
    path.write_text(head + "".join(f"{line}\n" for line in lines))
    return path


def read_lock(folder: Path) -> dict[str, str]:
    """Version by package of both files, python's too; empty where there is no lock."""
    found: dict[str, str] = {}
    for path in (folder / "conda.txt", folder / "pip.txt"):
        for line in path.read_text().splitlines() if path.is_file() else ():
            if line.startswith(("https:", "http:", "file:")):
                name, _, rest = line.rpartition("/")[2].partition("#")[0].rpartition("-")[0].rpartition("-")
                found[normal(name)] = rest
            elif "==" in line and not line.startswith(("#", "-")):
                name, _, rest = line.partition("==")
                found[normal(name)] = rest
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str], *, new: bool = True) -> list[str]:
    """`torch 2.10.0 -> 2.12.0` for each package that differs, those that decide bits first.

    Without `new`, packages that are only there now do not count.
    """
    names = sorted({*before, *now} if new else before, key=lambda name: (not decides(name), name))
    pairs = [(name, before.get(name), now.get(name)) for name in names]
    return [f"{name} {old or 'none'} -> {later or 'none'}" for name, old, later in pairs if old != later]


def decides(name: str) -> bool:
    """Whether another version of this package may give other bits."""
    return name in DECIDING or name.startswith("nvidia-")


def deciding(words: Iterable[str]) -> list[str]:
    """Those of these changes that may give other bits."""
    return [text for text in words if decides(text.partition(" ")[0])]
