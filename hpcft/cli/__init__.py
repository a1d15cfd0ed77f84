"""The `hpcft` command: a verb is one thin function over what the folders below it do."""

from __future__ import annotations

import sys

from hpcft.cli import (
    asking,
    clusters,
    comparing,
    data,
    debugging,
    drawing,
    envs,
    exporting,
    fetching,
    looking,
    steering,
    stitching,
    tensorboard,
    tracking,
)
from hpcft.cli.app import app
from hpcft.errors import UserError

__all__ = [
    "app",
    "asking",
    "clusters",
    "comparing",
    "data",
    "debugging",
    "drawing",
    "envs",
    "exporting",
    "fetching",
    "looking",
    "main",
    "steering",
    "stitching",
    "tensorboard",
    "tracking",
]
"""The modules of verbs are imported for that alone: each adds its own to `app`."""


def main() -> None:
    """The entry point: faults on stderr, one a line, and exit code 2."""
    try:
        app(prog_name="hpcft")
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr)
        sys.exit(error.exit_code)
