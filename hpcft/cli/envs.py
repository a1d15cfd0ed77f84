"""Verbs about environments: make one, try one on a node, write one down."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcft.cli.app import ClusterName, app
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.launch.cluster import Cluster
    from hpcft.launch.condaenv import Env
    from hpcft.launch.envcheck import Row
    from hpcft.sections import Resources

env = typer.Typer(help="Make, check and lock environments.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(env, name="env")
EnvName = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE|ENV]", help="A recipe, an env's name, prefix or file; else the env of this hpcft."),
]


@env.command()
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="conda's YAML, as envs/v100.yml.")],
    cluster: ClusterName = None,
    prefix: Annotated[
        Path | None, typer.Option("--prefix", help="Where to make it, instead of the cluster's envs.")
    ] = None,
) -> None:
    """Make the env of a file, with hpcft in it. Run again after a kill, it goes on."""
    from hpcft.launch import envcreate
    from hpcft.launch.envfile import read_env_file

    asked = read_env_file(file, "hpcft env create")
    made = envcreate.create(envcreate.plan_creation(asked, _cluster(cluster), prefix))
    name = str(made.prefix if prefix else file)  # a file is looked for among the cluster's envs
    command = ["hpcft", "env", "check", name, *(["--cluster", cluster] if cluster else [])]
    print(f"the env {made.prefix} is whole. Next: `{shlex.join(command)}`, and `env: {name}` in a recipe.")


@env.command()
def check(name: EnvName = None, cluster: ClusterName = None) -> None:
    """Try an env on a node of the cluster, in a job of a minute. Exit code 1 if jobs would fail in it."""
    from hpcft.launch import envcheck

    found, site, asked = _chosen(name, cluster)
    rows = envcheck.check(found, site, name or "hpcft env check", asked)
    _print_rows(f"{found.prefix} on {site.name}", rows)
    if any(row.fault and row.grave for row in rows):
        raise typer.Exit(1)


@env.command()
def lock(
    name: EnvName = None,
    cluster: ClusterName = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where, instead of beside the file.")] = None,
) -> None:
    """Write down every package of an env, as files that conda and pip install from."""
    from hpcft.launch.condaenv import read_facts
    from hpcft.launch.envlock import write_lock

    found, _, _ = _chosen(name, cluster)
    folder = out or (found.file.lock if found.file else Path(f"{found.prefix.name}.lock"))
    facts = read_facts(found, ("--freeze",), name or "hpcft env lock")
    try:
        written = write_lock(folder, found.prefix, facts, found.file.indices if found.file else ())
    except OSError as error:
        what = f"{folder} cannot be written: {(error.strerror or str(error)).lower()}."
        raise UserError(Fault("--out", what, "Name another folder.")) from None
    for path in written:
        print(path)


def _cluster(name: str | None) -> Cluster:
    """The cluster that is named, else the one that this machine is a login node of, else the recipe's default."""
    from hpcft.launch.cluster import Choice, files_here, read_cluster
    from hpcft.recipe import Recipe

    if name is None and len(here := files_here()) == 1:
        return here[0].cluster
    return read_cluster(Choice(name or Recipe.model_fields["cluster"].default, "--cluster"))


def _chosen(name: str | None, cluster: str | None) -> tuple[Env, Cluster, Resources | None]:
    """The env and the cluster that a recipe names, or that the command line does; and what a recipe asks for."""
    from hpcft.launch.condaenv import find_env
    from hpcft.recipefile import check_members

    where = "hpcft env"
    if name is not None and _is_recipe(Path(name)):
        first = check_members(Path(name))[0]  # of a matrix: its runs share an env
        if (file := first.file) is None or first.faults:
            raise UserError(first.faults)
        site = _cluster(cluster or file.recipe.cluster)
        return find_env(file.recipe.env, file.where("env"), site.folder("envs")), site, file.recipe.resources
    site = _cluster(cluster)
    return find_env(name, where, site.folder("envs")), site, None


def _is_recipe(path: Path) -> bool:
    """Whether a YAML file is a recipe and not conda's: only one of the two lists dependencies."""
    from hpcft.yamlfile import read_yaml

    if path.suffix not in (".yaml", ".yml"):
        return False
    try:
        return "dependencies" not in read_yaml(path, path.read_text(encoding="utf-8"))[0]
    except (OSError, UnicodeDecodeError):
        raise UserError(Fault(str(path), "cannot be read.", "Name a recipe, or an env.")) from None


def _print_rows(title: str, rows: list[Row]) -> None:
    """The table; what is wrong comes with its mend below, whole, to be copied."""
    from rich.table import Table
    from rich.text import Text

    from hpcft.launch.show import console

    table = Table("", "found", "fault", title=title, title_justify="left")
    for row in rows:
        colour = ("red" if row.grave else "yellow") if row.fault else "green"
        table.add_row(row.what, Text(row.found), Text(row.fault or "ok", style=colour))
    console.print(table)
    for row in rows:
        if row.fault and row.mend:
            console.print(f"{row.what}: {row.fault}. {row.mend}", markup=False, highlight=False, soft_wrap=True)
