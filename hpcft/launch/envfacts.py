"""What an env has, read from its files by its own python: `python -I envfacts.py NAME…` prints it as JSON.

Standard library only, and nothing of the env is imported: torch alone would take seconds. An env may have an old
python, which must still be able to say so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from typing import Any

METADATA = re.compile(r"(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")
VERSION = re.compile(r"^(__version__|cuda|hip)(?::[^=]*)?\s*=\s*['\"](.*)['\"]", re.MULTILINE)


def installed() -> dict[str, str]:
    """Version by normal name of every package that is installed for this python, by hand of conda or of pip."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208 - one listing, no look at any file
        except OSError:
            continue
        for match in filter(None, map(METADATA.fullmatch, names)):
            found.setdefault(normal(match.group(1)), match.group(2))
    return found


def freeze() -> list[str]:
    """The lines of `pip freeze` for all that conda has not brought; hpcft itself, which jobs carry along, left out."""
    lines = []
    for folder in sys.path:
        names = os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
        for name in names:
            match = METADATA.fullmatch(name)
            if match and name.endswith(".dist-info") and normal(match.group(1)) != "hpcft":
                inside = os.path.join(folder, name)  # noqa: PTH118
                if _read(inside, "INSTALLER").strip() != "conda":
                    lines.append(_requirement(match.group(1), match.group(2), _read(inside, "direct_url.json")))
    return sorted(set(lines), key=str.lower)


def _requirement(name: str, version: str, origin: str) -> str:
    """`name==version`, or `name @ git+https://…@commit` for what came from elsewhere."""
    direct = json.loads(origin) if origin else {}
    if vcs := direct.get("vcs_info"):
        return f"{name} @ {vcs['vcs']}+{direct['url']}@{vcs['commit_id']}"
    return f"{name} @ {direct['url']}" if direct else f"{name}=={version}"


def _read(folder: str, name: str) -> str:
    """A file of a package's metadata; nothing where it is not there."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return file.read()
    except OSError:
        return ""


def normal(name: str) -> str:
    """`Foo_bar` and `foo.bar` are one package, `foo-bar` (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(modules: list[str]) -> list[str]:
    """Those of these modules that this python would not find."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def torch_build() -> dict[str, Any] | None:
    """{version, cuda, hip, installer, stamp} of torch, which is not imported; None without one.

    `stamp` changes when the file does: another build of the same version is another torch.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    path = os.path.join(os.path.dirname(spec.origin), "version.py")  # noqa: PTH118, PTH120
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            values: dict[str, Any] = dict(VERSION.findall(file.read()))
        stamp = os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return None
    build = {"version": values.get("__version__"), "cuda": values.get("cuda"), "hip": values.get("hip")}
    return {**build, "installer": _installer(os.path.dirname(os.path.dirname(path))), "stamp": stamp}  # noqa: PTH120


def _installer(folder: str) -> str:
    """Who installed torch into this folder: `pip`, `conda`, `uv`; nothing if nobody says."""
    names = [name for name in os.listdir(folder) if name.startswith("torch-") and name.endswith(".dist-info")]  # noqa: PTH208
    return _read(os.path.join(folder, names[0]), "INSTALLER").strip() if names else ""  # noqa: PTH118


def facts(modules: list[str]) -> dict[str, Any]:
    """All of it, and which of these modules are missing."""
    python = "{}.{}.{}".format(*sys.version_info[:3])
    return {"python": python, "packages": installed(), "missing": missing(modules), "torch": torch_build()}


if __name__ == "__main__":
    answer = facts([name for name in sys.argv[1:] if name != "--freeze"])
    print(json.dumps({**answer, "freeze": freeze()} if "--freeze" in sys.argv else answer))
