"""A real conda for tests, made from packages of PyPI, and a channel with a python that is this machine's.

No registry has a conda that installs by pip, but the wheel conda-lock carries the whole source of one (24.7.1, BSD).
Only its shell files are taken from an older wheel, since the newer one leaves them out.

    python -m tests.conda.root FOLDER      then: . FOLDER/conda/etc/profile.d/conda.sh
"""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

NEEDS = (
    *("pycosat", "requests", "ruamel.yaml", "tqdm", "boltons", "packaging", "pluggy", "platformdirs", "distro"),
    *("archspec", "frozendict", "jsonpatch", "zstandard", "conda-package-handling", "conda-package-streaming"),
)
WHEELS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("conda-lock==4.0.3", lambda name: True),
    ("conda-lock==2.5.8", lambda name: name.startswith("shell/")),
)
INSIDE = "conda_lock/_vendor/conda/"
CONDARC = """\
solver: classic
channels: []
offline: true
auto_update_conda: false
notify_outdated_conda: false
number_channel_notices: 0
aggressive_update_packages: []
add_pip_as_python_dependency: false
"""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@cache
def conda_root() -> tuple[Path, str]:
    """The program `conda` and the address of a channel, made once for all tests."""
    folder = tempfile.TemporaryDirectory(prefix="hpcft-conda-")
    atexit.register(folder.cleanup)
    path = Path(folder.name).resolve()
    return make_root(path / "conda"), make_channel(path / "channel")


def pip(*arguments: str) -> None:
    """Run pip. Raises CalledProcessError, with what it said."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def make_root(root: Path) -> Path:
    """The program `conda` of a new installation, which cannot be moved: its place is written into it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    pip("--python", str(root / "bin/python"), "install", "--no-compile", *NEEDS)
    packages = root / f"lib/python{PYTHON}/site-packages"
    with tempfile.TemporaryDirectory() as wheels:
        for requirement, wanted in WHEELS:
            pip("download", "--no-deps", "--only-binary=:all:", "--dest", wheels, requirement)
            version = requirement.rpartition("=")[2]
            _unpack(next(Path(wheels).glob(f"conda_lock-{version}-*.whl")), packages / "conda", wanted)
    (root / "conda-meta").mkdir()
    (root / "conda-meta/history").touch()  # what makes it the env "base"
    (root / ".condarc").write_text(CONDARC)
    conda = root / "bin/conda"
    conda.write_text(f"#!{root}/bin/python\nimport sys\nfrom conda.cli import main\nsys.exit(main())\n")
    conda.chmod(0o755)
    subprocess.run([str(conda), "init", "--install"], check=True, capture_output=True)  # writes etc/profile.d/conda.sh
    return conda


def _unpack(wheel: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """The conda inside conda-lock, with its imports named as they were before it was put there."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inner = name.removeprefix(INSIDE)
            if name.startswith(INSIDE) and inner and not name.endswith("/") and wanted(inner):
                data = archive.read(name)
                if inner.endswith(".py"):
                    data = re.sub(rb"conda_lock\.(_vendor|vendor)\.conda", b"conda", data)
                path = folder / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def make_channel(folder: Path) -> str:
    """The address of a channel with three packages.

    `python` is this machine's own, `felt` has scripts that show an activation, and `ours` brings, by a .pth file, all
    that these tests run on.
    """
    base, site = os.path.realpath(sys.executable), f"lib/python{PYTHON}/site-packages"
    home = f"home = {Path(base).parent}\ninclude-system-site-packages = false\n"
    links = {f"bin/python{PYTHON}": base, "bin/python3": f"python{PYTHON}", "bin/python": f"python{PYTHON}"}
    version = sys.version.split()[0]
    _package(folder, "linux-64", "python", version, {"pyvenv.cfg": home, f"{site}/README.txt": "packages\n"}, links)
    scripts = {
        "etc/conda/activate.d/felt.sh": 'export FELT=$CONDA_PREFIX BEFORE=${NEVER_SET}\n[ -n "$NEVER_SET" ]\n',
        "etc/conda/deactivate.d/felt.sh": "export LEFT=$CONDA_PREFIX; unset FELT\n",
    }
    _package(folder, "noarch", "felt", "1.0", scripts, {})
    _package(folder, "linux-64", "ours", "1.0", {f"{site}/ours.pth": f"{Path(sys.prefix) / site}\n"}, {})
    for part in ("linux-64", "noarch"):
        found = {path.name: _entry(path) for path in sorted((folder / part).glob("*.tar.bz2"))}
        (folder / part / "repodata.json").write_text(json.dumps({"packages": found, "packages.conda": {}}))
    return f"file://{folder}"


def _package(
    folder: Path, part: str, name: str, version: str, files: Mapping[str, str], links: Mapping[str, str]
) -> None:
    """One package of a channel, as conda-build would write it."""
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": [], "subdir": part}
    index |= {"noarch": "generic"} if part == "noarch" else {"arch": "x86_64", "platform": "linux"}
    paths = [
        {"_path": path, "path_type": "softlink" if path in links else "hardlink", **_sums(files.get(path, "").encode())}
        for path in sorted([*files, *links])
    ]
    info = {
        "info/index.json": json.dumps(index),
        "info/files": "".join(f"{entry['_path']}\n" for entry in paths),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}),
    }
    (folder / part).mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / part / f"{name}-{version}-0.tar.bz2", "w:bz2") as archive:
        for path, text in {**info, **files}.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        for path, target in links.items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)


def _sums(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}


def _entry(path: Path) -> dict[str, object]:
    """What repodata.json says of a package."""
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        member = archive.extractfile("info/index.json")
        assert member is not None
        index = json.load(member)
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return {**index, **sums}


if __name__ == "__main__":
    make_root(Path(sys.argv[1]).absolute() / "conda")
    print(make_channel(Path(sys.argv[1]).absolute() / "channel"))
