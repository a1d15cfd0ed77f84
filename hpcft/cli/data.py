"""Verbs about rows: look at them as the model will, make files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcft.cli.app import ClusterName, Overrides, RecipePath, app
from hpcft.errors import Fault, UserError

data = typer.Typer(help="Look at rows, make files of documents.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.command()
def show(
    recipe: RecipePath,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, validation or test.")] = "train",
    phase: Annotated[str | None, typer.Option("--phase", metavar="NAME", help="Of a recipe with phases.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many of them as text.")] = 3,
    overrides: Overrides = [],  # noqa: B006
    cluster: ClusterName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show rows as the model will see them: what is learnt, how long they are, what is cut off."""
    import json

    from hpcft.launch.preview import preview, print_preview

    answer = preview(recipe, tuple(overrides), cluster, split, rows, phase)
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        print_preview(answer)


@data.command()
def csv(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Documents, also in folders below it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path(),
    validation: Annotated[float, typer.Option("--validation", help="Share of the documents to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of which ones are held out.")] = 0,
    endings: Annotated[
        list[str] | None, typer.Option("--ending", help="Of documents, as .rst; .txt and .md when not given.")
    ] = None,
) -> None:
    """Make train.csv and validation.csv of a folder of documents, one a row."""
    from hpcft.launch.documents import ENDINGS, write_csv
    from hpcft.launch.words import count

    if not 0 <= validation < 1:
        raise UserError(Fault("--validation", f"{validation:g} is no share below 1.", "Write 0.1 for a tenth."))
    made = write_csv(folder, out, validation, seed, tuple(endings) if endings else ENDINGS)
    for path, rows in zip(made.paths, made.rows, strict=True):
        print(f"{path}: {count(rows, 'document')}")
    if made.empty or made.repeated:
        print(f"left out: {made.empty} empty, {made.repeated} that say the same as another")
