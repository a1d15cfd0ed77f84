"""What all tests share: `make test` runs them in two processes, one for those that mostly wait for Slurm."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.pop("COLUMNS", None)  # xdist's processes have it; what we print into pipes would be cut there


@pytest.hookimpl(optionalhook=True)  # it is xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class SlurmAndTheRest(LoadScopeScheduling):  # type: ignore[misc]
        """One process runs what is in tests/slurm, with one Slurm for all of it; the other one all else."""

        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/") else "rest"

    return SlurmAndTheRest(config, log)
