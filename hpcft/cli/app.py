"""The `hpcft` command: what all its verbs share, their options and how they find runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

import hpcft
from hpcft.errors import Fault, UserError

if TYPE_CHECKING:
    from hpcft.rundir import RunDir

# What a verb needs is imported in it: `hpcft --help` has 0.25 s for everything.

VERBS = (
    *("submit", "status", "why", "logs", "show", "plot", "report", "compare", "tensorboard", "stitch"),
    *("stop", "resume", "extend", "cancel", "evaluate", "generate", "export", "track", "rm"),
    *("fetch", "debug", "verify", "data", "env", "cluster"),
)
"""As `--help` lists them: a day with a run first, what is done once for a site last."""


class InOrder(typer.core.TyperGroup):
    """The verbs in the order of VERBS."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=VERBS.index)


app = typer.Typer(
    cls=InOrder,
    help="Fine-tune language models over chains of Slurm jobs that end as one uncut run would.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"hpcft {hpcft.__version__}")
        raise typer.Exit


@app.callback()
def of_hpcft(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print hpcft's version.")
    ] = False,
) -> None:
    """Options that go with no verb."""


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or a prefix that fits only it.")]
RunNames = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or prefixes; all runs if none.")]
Changes = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change from here on, as resources.walltime=1:00:00.")
]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override, as train.seed=1.")]
ClusterName = Annotated[str | None, typer.Option("--cluster", metavar="NAME", help="Cluster, or a path to its file.")]
Runs = Annotated[Path | None, typer.Option("--runs", metavar="DIR", help="Folder of all runs, else HPCFT_RUNS.")]


def runs_folder(given: Path | None, cluster: Any = None) -> Path:
    """The folder of all runs: --runs, else HPCFT_RUNS, else the cluster's."""
    if cluster is not None:
        from hpcft.launch.plan import runs_root

        return runs_root(given, cluster)
    if named := str(given or os.environ.get("HPCFT_RUNS", "")):
        from hpcft.schema import expand

        return expand(named).resolve()
    return _only_cluster_folder()


def _only_cluster_folder() -> Path:
    """Without a recipe: the runs of the one known cluster that has any, else the place for those of this site's
    cluster or of the user's only own one, else ./runs."""
    from hpcft.launch.cluster import Choice, cluster_files, read_cluster_file, user_folder
    from hpcft.rundir import find_runs

    used, here, own = [], [], []
    for name in cluster_files():
        try:
            file = read_cluster_file(Choice(name, "--cluster"))
            folder = file.cluster.runs_folder().resolve()
        except UserError:
            continue  # a site whose variables are not set here
        used += [folder] if find_runs(folder) else []
        here += [folder] if file.cluster.is_here() else []
        own += [folder] if file.path.parent == user_folder() else []
    if len(set(used)) > 1:
        names = ", ".join(map(str, dict.fromkeys(used)))
        raise UserError(Fault("--runs", f"runs lie in several folders: {names}.", "Name one, or set HPCFT_RUNS."))
    likely = next((folders for folders in (used, here, own) if len(set(folders)) == 1), [Path("runs").resolve()])
    return likely[0]


def choose(root: Path, names: list[str] | None) -> list[RunDir]:
    """The runs of these names or prefixes; all of the folder if none is given."""
    from hpcft.rundir import find_run, find_runs

    return [find_run(root, name) for name in dict.fromkeys(names)] if names else find_runs(root)


def choose_one(runs: Path | None, name: str) -> RunDir:
    """The one run that this name or prefix means."""
    from hpcft.rundir import find_run

    return find_run(runs_folder(runs), name)
