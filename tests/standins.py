"""Environments for tests: real virtual ones, in which some packages only say what they are."""

from __future__ import annotations

import sys
from pathlib import Path

TORCH = """\
from types import SimpleNamespace
from .version import __version__, cuda as _cuda
version = SimpleNamespace(cuda=_cuda)
cuda = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
_C = SimpleNamespace(_cuda_getArchFlags=lambda: {archs!r})
"""
OURS = Path(sys.prefix)
"""The env of these tests; a desk shows another one as the one that runs."""
PACKAGES = Path(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")


def make_venv(prefix: Path, *, more: bool = True) -> Path:
    """The prefix of a new virtual environment; with `more`, it also has all that these tests run on."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / PACKAGES).mkdir(parents=True)
    base = Path(sys.executable).resolve()
    (prefix / "bin/python").symlink_to(base)
    (prefix / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    if more:  # what stands in the env's own folder is found first
        (prefix / PACKAGES / "more.pth").write_text(f"{OURS / PACKAGES}\n")
    return prefix


def put(prefix: Path, name: str, version: str, installer: str = "pip") -> Path:
    """The folder of a package that pip calls installed, and that can be imported."""
    metadata = prefix / PACKAGES / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "INSTALLER").write_text(f"{installer}\n")
    package = prefix / PACKAGES / name
    package.mkdir()
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    return package


def put_torch(prefix: Path, version: str, cuda: str | None, archs: str = "", installer: str = "pip") -> None:
    """A torch that reports this version, this CUDA and these architectures."""
    package = put(prefix, "torch", version.partition("+")[0], installer)
    said = "" if cuda is None else f"cuda: Optional[str] = {cuda!r}\n"
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = {version!r}\n{said or 'cuda: Optional[str] = None'}\n"
        "hip: Optional[str] = None\n"
    )
    (package / "__init__.py").write_text(TORCH.format(archs=archs))
