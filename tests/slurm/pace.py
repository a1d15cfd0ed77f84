"""An environment whose training takes its time, and whose node can be broken."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

PACE = """\
# Jobs of the chain take a third of a second a step, on a slow machine and on a fast one: so 340 steps outlast
# the two minutes of one job, and the machine has time for three chains and their references side by side.
# A variable stands for a GPU that fails at the first step.
import importlib.abc, os, sys, time

class Pace(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "hpcft.train.loop":
            sys.meta_path.remove(self)
            from torch.optim import AdamW
            step = AdamW.step

            def slow(self, *args):
                if os.environ.get("BROKEN_GPU") == os.environ.get("SLURMD_NODENAME"):
                    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
                time.sleep(0.35)
                return step(self, *args)

            AdamW.step = slow

sys.meta_path.insert(0, Pace())
"""


def slow_env(folder: Path) -> Path:
    """An environment with the packages of this one, in which a step takes its time."""
    venv.create(folder, symlinks=True)
    packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (packages / "base.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    (packages / "pace.py").write_text(PACE)
    (packages / "pace.pth").write_text("import pace\n")
    return folder
