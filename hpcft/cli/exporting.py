"""The verb that takes a model out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcft.cli.app import RunName, Runs, app, choose_one


@app.command()
def export(
    run: RunName,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")],
    dtype: Annotated[str, typer.Option("--dtype", metavar="NAME", help="fp32, fp16 or bf16.")] = "fp32",
    keep_adapter: Annotated[
        bool, typer.Option("--keep-adapter", help="Put the adapters into OUT/adapter too.")
    ] = False,
    checkpoint: Annotated[
        int | None, typer.Option("--checkpoint", metavar="STEP", help="Take this one, not the final model.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Take the weights of the lowest validation loss.")] = False,
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="Put the folder on the hub, too.")
    ] = None,
    runs: Runs = None,
) -> None:
    """Write a run's model as a plain folder, with its card."""
    from hpcft.launch.export import Export, loader, write

    found = choose_one(runs, run)
    if code := write(Export(found, out.absolute(), dtype, keep_adapter, checkpoint, best, push)):
        raise typer.Exit(code)
    print(f"{found.name}: {out}, for {loader(found.recipe)}")
    if push:
        print(f"on the hub: {push}")
