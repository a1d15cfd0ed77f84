"""An env as a file: conda's YAML, of which the conda part and the pip part are installed apart."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.schema import NAME
from hpcft.yamlfile import read_yaml

INDEX = frozenset({"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host"})
"""Options that say where pip finds packages."""


@dataclass(frozen=True)
class EnvFile:
    """What an `envs/NAME.yml` asks for."""

    path: Path
    text: str
    name: str
    channels: tuple[str, ...]
    conda: tuple[str, ...]
    """Conda's packages."""
    pip: tuple[str, ...]
    """Lines of the pip part, each a requirement or options."""

    @property
    def lock(self) -> Path:
        """The folder beside it in which `hpcft env lock` writes."""
        return self.path.with_suffix(".lock")

    @property
    def fingerprint(self) -> str:
        """Changes with the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def indices(self) -> tuple[str, ...]:
        """Lines of the pip part that say where packages are, and nothing else: a file for `pip -r` may have them."""
        return tuple(line for line in self.pip if line.startswith("-") and _options(line) <= INDEX)

    def pip_arguments(self) -> list[str]:
        """The pip part as `pip install` takes it: a requirement is one word, `--index-url URL` two."""
        words: list[str] = []
        for line in self.pip:
            words += shlex.split(line) if line.startswith("-") else [line]
        return words


def is_env_file(name: str) -> bool:
    """Whether an env is meant by its file."""
    return name.endswith((".yml", ".yaml"))


def read_env_file(path: Path, where: str) -> EnvFile:
    """The file. Raises UserError, at `where`, with every fault in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # no UTF-8, or a path with a null byte
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(Fault(where, f"{path} cannot be read: {reason}.", "Name an env, or its YAML file.")) from None
    values, lines = read_yaml(path, text)
    faults = []

    def fault(key: str, what: str, fix: str) -> None:
        faults.append(Fault(f"{path}:{lines.get(key, 1)}", what, fix))

    name = values.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fault("name", f'name = "{name}" is no name of an env.', "Write letters, digits, dots, dashes and underscores.")
    channels = values.get("channels", [])
    if not _texts(channels):
        fault("channels", "channels is no list of names.", "Write `channels: [conda-forge, nodefaults]`.")
    dependencies = values.get("dependencies")
    if not isinstance(dependencies, list):
        fault("dependencies", "dependencies is no list.", 'Write `dependencies: [python=3.11, pip, {pip: ["torch"]}]`.')
        dependencies = []
    conda, pip = [], []
    for item in dependencies:
        if isinstance(item, str):
            conda.append(item)
        elif isinstance(item, dict) and list(item) == ["pip"] and _texts(item["pip"]):
            pip += item["pip"]
            for line in filter(_is_torn, item["pip"]):
                fault("dependencies", f"pip's line {line!r} has a quote that is not closed.", "Close it.")
        else:
            fault(
                "dependencies", f"{str(item)[:60]!r} is no dependency.", "Write `name=version`, or a list below `pip:`."
            )
    if faults:
        raise UserError(faults)
    return EnvFile(path, text, str(name), tuple(channels), tuple(conda), tuple(pip))


def _is_torn(line: str) -> bool:
    """Whether a line of options cannot be split into words."""
    try:
        shlex.split(line if line.startswith("-") else "")
    except ValueError:
        return True
    return False


def _options(line: str) -> set[str]:
    """`--index-url` of `--index-url=URL`, and all others of the line."""
    return {word.partition("=")[0] for word in shlex.split(line) if word.startswith("-")}


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
