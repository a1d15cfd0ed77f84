"""The fixture `slurm`: one private Slurm for all tests in this folder, which carry the marker slurm."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.lab import Lab, missing_programs

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Lab]:
    """A running Lab of two nodes; SLURM_CONF names it, and no other SLURM_ or SBATCH_ variable is set."""
    need_slurm()
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # not under TMPDIR: sockets want a short path
    lab = Lab(folder, dies_with_parent=True)
    try:
        lab.start()
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
                patch.delenv(name)
            patch.setenv("SLURM_CONF", str(lab.conf))
            yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)


def need_slurm() -> None:
    """Fail where continuous integration lacks Slurm's programs; skip the test, and say why, anywhere else."""
    missing = missing_programs()
    if not missing:
        return
    reason = f"needs {', '.join(missing)}: run tests/install-system-packages as root"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
