"""What other trackers need before a run is queued: their packages in the env, and a key where they lead elsewhere."""

from __future__ import annotations

import netrc
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from hpcft.errors import Fault
from hpcft.launch.cluster import Cluster
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile

MODULES = {
    "aim": ("aim",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""By tracker, the modules that it needs. mlflow-skinny brings the first, a store in a file needs the others."""
OFFLINE = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE with which nothing leaves the node."""
WANDB = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""W&B's own server, by its old name and by the one that wandb has from 0.31 on; a key for one is good for both."""
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "__AIM_TELEMETRY_DISABLED": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What keeps trackers off the GPU, and from telling their makers how they are used."""


def tracker_modules(recipe: Recipe) -> tuple[str, ...]:
    """Modules that hand the curve on to the trackers of this recipe; jobs that lack them train all the same."""
    served = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    needed = {**MODULES, "mlflow": ("mlflow",)} if served else MODULES
    return tuple(module for name in dict.fromkeys(recipe.track.to) for module in needed[name])


def tracker_faults(file: RecipeFile, cluster: Cluster) -> Iterator[Fault]:
    """That W&B would turn the jobs away, since it has no key of the user's here."""
    if "wandb" not in file.recipe.track.to or not cluster.internet or os.environ.get("WANDB_MODE") in OFFLINE:
        return
    if not os.environ.get("WANDB_API_KEY") and not _has_key():
        what = "track.to has wandb, and W&B has no key of yours on this machine."
        yield Fault(file.where("track.to"), what, "Run `wandb login`, or submit with WANDB_MODE=offline.")


def _has_key() -> bool:
    """Whether `wandb login` has left a key for the server, where it leaves it."""
    server = os.environ.get("WANDB_BASE_URL", WANDB[0]).rstrip("/")
    hosts = [urllib.parse.urlsplit(url).netloc for url in (WANDB if server in WANDB else (server,))]
    named = os.environ.get("NETRC")
    for place in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            keys = netrc.netrc(place)
        except (OSError, netrc.NetrcParseError):
            continue
        if any(keys.authenticators(host) for host in hosts):
            return True
    return False


def variables(internet: bool) -> dict[str, str]:
    """What such a process finds in its environment beside what the job has; a mode of W&B's that is set stays."""
    offline = {} if internet else {"HF_HUB_OFFLINE": "1"}
    mode = {} if internet or os.environ.get("WANDB_MODE") else {"WANDB_MODE": "offline"}
    return {**QUIET, **offline, **mode}
