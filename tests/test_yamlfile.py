"""YAML without surprises."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.yamlfile import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1E3", 1000.0),
        ("+.5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("-7", -7),
        ("010", 10),
        ("2:00:00", "2:00:00"),
        ("1-00:00:00", "1-00:00:00"),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3", "1.2.3"),
        ("0x10", "0x10"),
        ("[no, 5e-5]", ["no", 5e-5]),
        ("'5'", "5"),
    ],
)
def test_yaml_means_what_it_looks_like(text: str, value: object) -> None:
    read = read_yaml(Path("x.yaml"), f"key: {text}\n")[0]["key"]
    assert (read, type(read)) == (value, type(value))
