"""The host's memory: what this process may still take before the machine, or Slurm's limit on the job, says no."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> int:
    """Bytes: the machine's, or what is left in the narrowest of the control groups that this process is in."""
    with (root / "proc/meminfo").open() as file:
        facts = dict(line.split(":", 1) for line in file)
    return min([int(facts["MemAvailable"].split()[0]) << 10, *_groups(root)])


def _groups(root: Path) -> Iterator[int]:
    """What each group and the ones above it leave; the page cache in it counts as free, as the kernel gives it up."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif controllers == "memory":
            top = root / "sys/fs/cgroup/memory"
            limit, used, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            # No file at the top, or none that we see from within a container; "max" where there is no limit.
            with contextlib.suppress(OSError, ValueError, KeyError):
                most = int((group / limit).read_text())
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(0, most - int((group / used).read_text()) + int(stat[cache]))
            if group == top:
                break
