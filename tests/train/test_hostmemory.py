"""The host's memory is what the machine has, or less where Slurm's limit on a job, a step or a task says so."""

from __future__ import annotations

from pathlib import Path

from hpcft.train.hostmemory import available

GIB = 1 << 30


def machine(root: Path, groups: str) -> Path:
    """A machine of which 10 GiB are available."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 16777216 kB\nMemAvailable: {10 << 20} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(folder: Path, names: tuple[str, str, str], most: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def test_the_narrowest_group_counts_and_its_page_cache_is_free(tmp_path: Path) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    root = machine(tmp_path, "0::/slurm/job_7/step_0\n")
    top = root / "sys/fs/cgroup"
    assert available(root) == 10 * GIB, "no group says anything"
    group(top / "slurm/job_7/step_0", names, "max", 2 * GIB, 0)
    assert available(root) == 10 * GIB
    group(top / "slurm/job_7", names, str(8 * GIB), 5 * GIB, 2 * GIB)
    assert available(root) == 5 * GIB
    group(top / "slurm/job_7/step_0", names, str(3 * GIB), 4 * GIB, 0)
    assert available(root) == 0


def test_the_older_kind_of_groups_is_read_too(tmp_path: Path) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    root = machine(tmp_path, "4:memory:/slurm/uid_1/job_7\n3:cpuset:/slurm\n0::/\n")
    group(root / "sys/fs/cgroup/memory/slurm/uid_1", names, str(6 * GIB), 2 * GIB, GIB)
    group(root / "sys/fs/cgroup/memory/slurm/uid_1/job_7", names, str((1 << 63) - 4096), 0, 0)
    assert available(root) == 5 * GIB


def test_this_machine_has_some_memory() -> None:
    assert available() > 1 << 20
