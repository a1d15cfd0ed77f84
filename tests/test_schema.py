"""The schema's own readers of Slurm's ways of writing."""

from __future__ import annotations

import pytest

from hpcft.schema import memory_bytes, walltime_seconds


def test_amounts_of_memory_are_read_as_slurm_writes_them() -> None:
    assert [memory_bytes(text) for text in ("1K", "3M", "60G", "2T", "1.5G", "4Gn")] == [
        1024, 3 << 20, 60 << 30, 2 << 40, 3 << 29, 4 << 30,
    ]  # fmt: skip
    assert (memory_bytes("512"), memory_bytes("512", "")) == (512 << 20, 512)  # sbatch's and sacct's
    assert [memory_bytes(text) for text in ("", "4000Mc", "64GB", "1.2.3G")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:40", 40), ("30:00", 1800), ("2:00:00", 7200), ("1-00:00:05", 86405), ("100:00:00", 360000)],
)
def test_a_walltime_is_read_as_slurm_reads_it(text: str, seconds: int) -> None:
    assert walltime_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "2h", "120", "0:00", "2:0:0", "-1:00:00", "1:00:00 "])
def test_what_is_no_walltime_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no walltime"):
        walltime_seconds(text)
