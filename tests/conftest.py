"""What all tests share: `make test` runs them in two processes, one of which begins with those that wait for Slurm."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

os.environ.pop("COLUMNS", None)  # xdist's processes have it; what we print into pipes would be cut there

# A shell that starts the tests in the background has them ignore Ctrl-C, nohup a hangup, and that is inherited.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

TOGETHER = ("tests/slurm", "tests/conda")
"""Folders whose tests share what takes long to make: a Slurm, a conda."""
FIRST = ("tests/slurm", "tests/test_fuzz.py", "tests/test_local_run.py", "tests/train/test_exact.py", "tests/conda")
"""What takes longest; begun last, it would leave one process waiting for the other."""


def scope(nodeid: str) -> str:
    """What is run by one process, in order: a file, or one of these folders."""
    return next((folder for folder in TOGETHER if nodeid.startswith(f"{folder}/")), nodeid.partition("::")[0])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        rank = {name: number for number, name in enumerate(FIRST)}
        items.sort(key=lambda item: rank.get(scope(item.nodeid), len(rank)))


@pytest.hookimpl(optionalhook=True)  # it is xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Scopes(LoadScopeScheduling):  # type: ignore[misc]
        """A process that is done with a scope takes the next; the first two begin with the longest."""

        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False  # it would sort scopes by their number of tests
    return Scopes(config, log)
