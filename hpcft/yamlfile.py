"""YAML without surprises: its values as they are written, and the line of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpcft.errors import Fault, UserError


def place(path: Path, lines: Mapping[str, int], key: str) -> str:
    """`jobs/demo.yaml:7`: the line of a dotted key, or of the nearest section around it that the file has."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return f"{path}:{lines.get(key, 1)}"


class Loader(yaml.SafeLoader):
    """YAML without surprises: `no` and `2:00:00` stay text, and `5e-5` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it


# PyYAML follows YAML 1.1, where 2:00:00 is the integer 7200, no is False and 5e-5 is text.
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|)$"), ["~", "n", "N", ""])
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)


def _scalar(convert: Callable[[str], object]) -> Callable[[yaml.SafeLoader, yaml.ScalarNode], object]:
    """A constructor of values; a text that is none, as in `!!int x`, is an error with its line."""

    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
        text = str(loader.construct_scalar(node))
        try:
            return convert(text)
        except ValueError:
            raise yaml.constructor.ConstructorError(
                None, None, f'"{text}" does not fit its tag', node.start_mark
            ) from None

    return construct


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if "\0" in text:  # as "\0" writes it; no path, argument or variable can hold it
        raise yaml.constructor.ConstructorError(None, None, "the character U+0000 is not allowed", node.start_mark)
    return text


def _float(text: str) -> float:
    return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


def _bool(text: str) -> bool:
    return bool(("false", "true").index(text.lower()))


Loader.add_constructor("tag:yaml.org,2002:float", _scalar(_float))
Loader.add_constructor("tag:yaml.org,2002:int", _scalar(lambda text: int(text.replace("_", ""))))
Loader.add_constructor("tag:yaml.org,2002:bool", _scalar(_bool))
Loader.add_constructor("tag:yaml.org,2002:str", _text)
for name in ("timestamp", "binary", "set", "omap", "pairs"):
    del Loader.yaml_constructors[f"tag:yaml.org,2002:{name}"]  # no value of a recipe is one


def yaml_line(key: str, value: object) -> str:
    """`key: value` as one line of YAML."""
    # In a list, whose brackets go again: by itself PyYAML ends a value with a line of dots.
    return f"{key}: {yaml.safe_dump([value], default_flow_style=True, width=1 << 16, allow_unicode=True)[1:-2]}"


def read_yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML text, and the line of each dotted key. Raises UserError: syntax, duplicate keys."""
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        _walk(node, "", path, lines, faults)
        values = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        line, problem = explain_syntax(text, error)
        raise UserError(Fault(f"{path}:{line}", f"no valid YAML: {problem}.")) from None
    except RecursionError:
        raise UserError(Fault(f"{path}:1", "holds an alias of what it stands in.", "Remove that *alias.")) from None
    if faults:
        raise UserError(faults)
    if not isinstance(values, dict):
        raise UserError(Fault(f"{path}:1", "holds no mapping.", "Begin with `name: ...`."))
    return values, lines


def explain_syntax(text: str, error: yaml.YAMLError) -> tuple[int, str]:
    """Line and nature of a syntax error."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return line, f"the character U+{ord(text[error.position]):04X} is not allowed"
    if not isinstance(error, yaml.MarkedYAMLError):
        return 1, str(error)
    words = error.problem or str(error)
    if error.context and error.context.startswith("expected"):
        words = f"{error.context}, {words}"
    return (error.problem_mark.line + 1 if error.problem_mark else 1), words


def _walk(node: yaml.Node | None, prefix: str, path: Path, lines: dict[str, int], faults: list[Fault]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{prefix}{index}"] = item.start_mark.line + 1
            _walk(item, f"{prefix}{index}.", path, lines, faults)
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if key in lines:
            faults.append(Fault(f"{path}:{line}", f'"{key}" stands here and in line {lines[key]}.', "Keep one."))
        lines.setdefault(key, line)
        _walk(value_node, f"{key}.", path, lines, faults)
