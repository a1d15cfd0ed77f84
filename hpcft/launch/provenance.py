"""Where a run came from: the checkout around its recipe, the data and the model as they were at its submission."""

from __future__ import annotations

import getpass
import hashlib
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcft import __version__
from hpcft.disk import read_json
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir

WHOLE = 8 << 20
"""Bytes up to which a file is hashed whole at the submission."""
PIECE = 1 << 20
"""Bytes at the start and at the end that are hashed of a larger one: a login node must not read 6 GB of weights."""
LONGEST_DIFF = 1 << 20
"""Characters of an uncommitted diff that are kept."""
MOST_UNTRACKED = 200
"""Names of untracked files that are kept."""
GIT_PATIENCE = 10


def describe(path: Path, recipe: Recipe, overrides: tuple[str, ...]) -> dict[str, Any]:
    """What provenance.json holds of a submission, but for the env and the cluster, which have their own files."""
    with ThreadPoolExecutor() as pool:  # git waits for the disk while files are hashed
        git = pool.submit(git_state, path)
        data = {key: fingerprint(Path(file)) for key, file in data_files(recipe).items()}
        model = model_files(recipe.model.path)
        return {
            "recipe": str(path.absolute()),
            "overrides": list(overrides),
            "hpcft": __version__,
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "data": data,
            "model": model,
            **git.result(),
        }


def provenance(run: RunDir) -> dict[str, Any]:
    """What was recorded at the submission of this run; empty for one that has no record."""
    return read_json(run.path / "provenance.json") or {}


def git_state(path: Path) -> dict[str, Any]:
    """{git_sha, git_diff, git_untracked} of the checkout around this file; None where there is none.

    Of untracked files the names are kept, not what is in them: they may be data, or secrets.
    """
    sha = _git(path, "rev-parse", "HEAD")
    if sha is None:
        return {"git_sha": None, "git_diff": None, "git_untracked": None}
    # Without the user's own programs, which may start a viewer, or print what no patch can read.
    diff = _git(path, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    if diff is not None and len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n[{len(diff) - LONGEST_DIFF} more characters were not kept]\n"
    names = _git(path, "ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/")
    untracked = None if names is None else sorted(name for name in names.split("\0") if name)
    return {"git_sha": sha.strip(), "git_diff": diff, "git_untracked": _some(untracked) if untracked else untracked}


def _some(names: list[str]) -> list[str]:
    more = len(names) - MOST_UNTRACKED
    return names if more <= 0 else [*names[:MOST_UNTRACKED], f"... and {more} more"]


def _git(path: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(path.absolute().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_PATIENCE, errors="replace")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def data_files(recipe: Recipe) -> dict[str, str]:
    """The files of rows by their key: train, validation, test; of a saved dataset the one that says what is in it.

    Of a phase it is full/train, as its features are called. Rows of the hub have none here.
    """
    found = {}
    for number, each in enumerate(recipe.each_phase()):
        below = recipe.features_folder(number)
        for key in ("train", "validation"):
            if path := _data_file(getattr(each.data, key), key):
                found[f"{below}/{key}" if below else key] = path
    test = _data_file(recipe.data.test, "test")
    return {**found, "test": test} if test else found


def _data_file(path: str | None, split: str) -> str | None:
    if not path or not path.startswith("/"):
        return None
    return path if Path(path).suffix else saved_state(Path(path), split)


def saved_state(folder: Path, split: str) -> str:
    """The state.json of a dataset that `save_to_disk` has written: it holds a fingerprint of its rows."""
    name = folder.name.partition(":")[2] if not folder.exists() else ""
    if name:
        folder, split = folder.with_name(folder.name.partition(":")[0]), name
    inner = folder / split if (folder / "dataset_dict.json").exists() else folder
    return str(inner / "state.json")


def model_files(folder: str) -> dict[str, Any] | None:
    """Fingerprint of each file of a model folder by name; None for a hub id, whose files are not here."""
    if not Path(folder).is_absolute():
        return None
    try:
        return {path.name: fingerprint(path) for path in sorted(Path(folder).iterdir()) if path.is_file()}
    except OSError:
        return {}


def fingerprint(path: Path) -> dict[str, Any] | None:
    """{path, bytes, mtime, sha256, hashed}: `hashed` says of what, since a large file is not read whole.

    None for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            stat = path.stat()
            digest = hashlib.sha256()
            if stat.st_size <= WHOLE:
                digest.update(file.read())
            else:
                digest.update(file.read(PIECE))
                file.seek(-PIECE, 2)
                digest.update(file.read())
    except OSError:
        return None
    hashed = "whole" if stat.st_size <= WHOLE else "first and last MiB"
    facts = {"path": str(path), "bytes": stat.st_size, "mtime": stat.st_mtime}
    return {**facts, "sha256": digest.hexdigest(), "hashed": hashed}


def same(before: dict[str, Any] | None, now: dict[str, Any] | None) -> bool:
    """Whether two fingerprints are of the same bytes; a file that was only touched, or copied, is the same."""
    keys = ("bytes", "sha256", "hashed")
    return before is not None and now is not None and all(before[key] == now[key] for key in keys)
