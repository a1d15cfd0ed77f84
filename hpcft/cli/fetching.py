"""The verb that brings what jobs without internet need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcft.cli.app import ClusterName, Overrides, app


@app.command()
def fetch(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, or the directory of a run.")],
    overrides: Overrides = [],  # noqa: B006
    cluster: ClusterName = None,
) -> None:
    """Bring a recipe's model and rows from the hub to the cluster."""
    from hpcft.launch import fetch as fetch_

    try:
        for want in fetch_.wanted(recipe, tuple(overrides), cluster):
            fetch_.fetch(want)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
