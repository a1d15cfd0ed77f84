"""The schema's own readers of Slurm's ways of writing."""

from __future__ import annotations

from hpcft.schema import memory_bytes


def test_amounts_of_memory_are_read_as_slurm_writes_them() -> None:
    assert [memory_bytes(text) for text in ("1K", "3M", "60G", "2T", "1.5G", "4Gn")] == [
        1024, 3 << 20, 60 << 30, 2 << 40, 3 << 29, 4 << 30,
    ]  # fmt: skip
    assert (memory_bytes("512"), memory_bytes("512", "")) == (512 << 20, 512)  # sbatch's and sacct's
    assert [memory_bytes(text) for text in ("", "4000Mc", "64GB", "1.2.3G")] == [None] * 4
