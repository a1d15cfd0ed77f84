"""What `hpcft env check` last found in an env, kept where a later submit finds it: below ~/.cache/hpcft."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from hpcft.disk import read_json, write_json
from hpcft.launch.condaenv import Env


def record_file(env: Env) -> Path:
    """The file of this env; the user's own, since an env may be shared, and not writable."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(env.prefix).encode()).hexdigest()[:12]
    return cache / "hpcft" / "envs" / f"{env.prefix.name}-{name}.json"


def record_check(env: Env, build: dict[str, Any] | None, cluster: str, found: dict[str, Any]) -> Path:
    """Where the answer of the probe now lies, with the torch that it is about."""
    path = record_file(env)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(
        path, {"prefix": str(env.prefix), "cluster": cluster, "time": time.time(), "torch": build, "found": found}
    )
    return path


def recorded_archs(env: Env, build: dict[str, Any]) -> list[str] | None:
    """What this very build of torch said that it was built for; None if nobody has asked it."""
    try:
        record = read_json(record_file(env))
    except (OSError, ValueError):
        return None
    if record is None or record["torch"] != build or not record["found"].get("torch"):
        return None
    archs: list[str] = record["found"]["torch"]["archs"]
    return archs
