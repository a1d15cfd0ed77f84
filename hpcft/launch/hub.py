"""The hub's cache: where it lies on a cluster, and whether a model is in it whole, known without asking anybody."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hpcft.disk import read_json
from hpcft.errors import Fault
from hpcft.launch.cluster import Cluster
from hpcft.launch.weights import weight_files
from hpcft.rundir import RunDir
from hpcft.schema import expand
from hpcft.sections import Model

COMMIT = re.compile(r"[0-9a-f]{40}")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
"""One of these is in every folder that a tokenizer can be loaded from."""


def is_hub_id(model: Model) -> bool:
    """Whether a model of a checked recipe comes from the hub: every other path is absolute there."""
    return not model.path.startswith("/")


def run_model(run: RunDir) -> Model:
    """The model of a run, at the commit that its first job found, if that has begun."""
    model, found = run.recipe.model, read_json(run.path / "model.json")
    return model.model_copy(update={"revision": found["commit"]}) if found else model


def hub_home(cluster: Cluster) -> Path:
    """HF_HOME of the jobs: the cluster's cache, else what is set here, else the hub's own default in home."""
    if (named := cluster.folder("cache")) is not None:
        return named.absolute()
    return _default_home()


def hub_cache(cluster: Cluster) -> Path:
    """Folder of the hub's snapshots, HF_HUB_CACHE of the jobs."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given and cluster.cache is None:
        return _whole(given)
    return hub_home(cluster) / "hub"


def hub_variables(cluster: Cluster) -> dict[str, str]:
    """What keeps the hub's cache, and whatever else libraries put into home, where the cluster wants caches."""
    if cluster.cache is None:
        return {}
    home = hub_home(cluster)
    folders = {
        "HF_HOME": home,
        "HF_HUB_CACHE": home / "hub",
        "HF_ASSETS_CACHE": home / "assets",
        "HF_DATASETS_CACHE": home / "datasets",
        "HF_XET_CACHE": home / "xet",
        "XDG_CACHE_HOME": home / "xdg",
        "TRITON_CACHE_DIR": home / "triton",
        "CUDA_CACHE_PATH": home / "cuda",
        # Where a login has left the user's token: HF_HOME would hide it.
        "HF_TOKEN_PATH": _token_path(),
    }
    return {key: str(path) for key, path in folders.items()}


def _default_home() -> Path:
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _whole(os.environ.get("HF_HOME") or f"{above}/huggingface")


def _token_path() -> Path:
    given = os.environ.get("HF_TOKEN_PATH")
    return _whole(given) if given else _default_home() / "token"


def _whole(text: str) -> Path:
    return expand(os.path.expandvars(text)).absolute()


def repo_folder(cache: Path, model: Model) -> Path:
    """Folder of all snapshots of a model: `models--openai-community--gpt2`."""
    return cache / f"models--{model.path.replace('/', '--')}"


def snapshot(cache: Path, model: Model) -> Path | None:
    """The folder in the cache that a job without internet would load this model from; it may lack files."""
    folder, revision = repo_folder(cache, model), model.revision or "main"
    if not COMMIT.fullmatch(revision):
        try:
            revision = (folder / "refs" / revision).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    found = folder / "snapshots" / revision
    return found if revision and found.is_dir() else None


def lacks(folder: Path) -> list[str]:
    """What a model cannot be loaded without and this folder has not, in words; a link to nothing counts as nothing."""
    weights = weight_files(folder)
    names = ["config.json", *weights]
    missing = [name for name in names if not (folder / name).exists()]
    if not weights:
        missing.append("weights")
    if not any((folder / name).exists() for name in TOKENIZERS):
        missing.append("tokenizer")
    return missing


def absence(cluster: Cluster, model: Model) -> str | None:
    """Why a job on this cluster could not load a hub's model, in words; None if it can, or may try."""
    if cluster.internet or not is_hub_id(model):
        return None
    cache = hub_cache(cluster)
    folder = snapshot(cache, model)
    name = model.path if model.revision is None else f"{model.path} at {model.revision}"
    nodes = f"nodes of {cluster.name} do not reach the hub"
    if folder is None:
        return f"{name} is not in {cache}, and {nodes}."
    if missing := lacks(folder):
        return f"{name} is not whole in {cache} ({', '.join(missing)} missing), and {nodes}."
    return None


def absence_fault(where: str, cluster: Cluster, model: Model, command: str) -> Fault | None:
    """The same as a fault, with the command that brings the model."""
    why = absence(cluster, model)
    return None if why is None else Fault(where, why, f"`{command}` brings it.")


def model_folder(cluster: Cluster, model: Model) -> Path | None:
    """The folder that the model lies in on this machine; None for one that is still on the hub."""
    return snapshot(hub_cache(cluster), model) if is_hub_id(model) else Path(model.path)
