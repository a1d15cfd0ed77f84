"""The env of a run as it is now, against what its first job recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcft.disk import read_json
from hpcft.launch.condaenv import Env, read_facts
from hpcft.launch.envfacts import normal
from hpcft.launch.envlock import changes, deciding, versions
from hpcft.rundir import RunDir

SHOWN = 8
"""Changes that are named; the rest is counted."""


def env_changes(record: Mapping[str, Any], prefix: Path, facts: Mapping[str, Any]) -> list[str]:
    """`torch 2.10.0 -> 2.12.0` for each package that is not as a run's env.json says."""
    pairs = (text.partition("==")[::2] for text in record["packages"])
    before = {normal(name): version for name, version in pairs}
    return changes({**before, "python": record["python"].split()[0]}, versions(prefix, facts))


def env_words(changed: Sequence[str]) -> str:
    """A line about these changes: those that may give other bits by name, the others counted."""
    grave = deciding(changed)
    more = [f"{len(grave) - SHOWN} more"] if len(grave) > SHOWN else []
    others = len(changed) - len(grave)
    counted = [f"{others} other{'s' if others > 1 else ''}"] if others else []
    bits = "which may give other bits" if grave else "none of which decides bits"
    return f"the env has changed since job 1, {bits}: {'; '.join([*grave[:SHOWN], *more, *counted])}."


def env_notes(run: RunDir, env: Env) -> list[str]:
    """What to say about the env when a run goes on: nothing where it is as its first job found it."""
    record = read_json(run.path / "env.json")
    if record is None:
        return []
    changed = env_changes(record, env.prefix, read_facts(env, (), run.name))
    return [f"warning: {env_words(changed)}"] if changed else []
