"""The env of a run as its first job found it: what a later difference is measured against."""

from __future__ import annotations

import contextlib
import json
import sys
from importlib.metadata import distributions
from pathlib import Path

from hpcft.rundir import write_json


def record_env(path: Path) -> None:
    """Write python, packages (as `pip freeze`) and conda's own files (as `conda list --explicit`), once for a run."""
    if path.exists():
        return
    packages = sorted({f"{found.metadata['Name']}=={found.version}" for found in distributions()}, key=str.lower)
    urls = []
    for file in sorted(Path(sys.prefix).glob("conda-meta/*.json")):
        with contextlib.suppress(OSError, ValueError):
            urls.append(json.loads(file.read_bytes()).get("url"))
    record = {"prefix": sys.prefix, "python": sys.version, "packages": packages, "conda": [url for url in urls if url]}
    with contextlib.suppress(OSError):  # it is a record, and no reason to end a job that trains
        write_json(path, record)
