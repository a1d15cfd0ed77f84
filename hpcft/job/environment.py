"""The env of a run as its first job found it, and what of it a later job finds changed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from hpcft.disk import read_json, write_json
from hpcft.launch import envfacts
from hpcft.launch.envdrift import env_changes, env_words
from hpcft.launch.envlock import explicit, versions
from hpcft.rundir import JobDir, RunDir


def record_env(run: RunDir, job: JobDir) -> None:
    """Write the env down, once for a run; where it has changed since, say so in the log and beside the job."""
    path, prefix = run.path / "env.json", Path(sys.prefix)
    facts = {"packages": envfacts.installed(), "python": sys.version.split()[0]}
    with contextlib.suppress(OSError, ValueError):  # it is a record, and no reason to end a job that trains
        record = read_json(path)
        if record is None:
            packages = [f"{name}=={version}" for name, version in sorted(versions(prefix, facts).items())]
            lock = {"conda": explicit(prefix), "pip": envfacts.freeze()}
            write_json(path, {"prefix": sys.prefix, "python": sys.version, "packages": packages, **lock})
        elif changed := env_changes(record, prefix, facts):
            write_json(job.path / "env.json", {"changes": changed})
            print(f"hpcft: {env_words(changed)}", flush=True)
