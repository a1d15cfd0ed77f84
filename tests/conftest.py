"""What all tests share: `make test` runs them in two processes, one for those that mostly wait for Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

SLURM = Path(__file__).parent / "slurm"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = "slurm" if item.path.is_relative_to(SLURM) else "rest"
        item.add_marker(pytest.mark.xdist_group(group))
