"""What an env can do on the node where this runs: `python probe.py` prints it as JSON, for `hpcft env check`.

Standard library only, beside what it tries: an env in which nothing of hpcft can be imported must be able to say so.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

MARK = "HPCFT-PROBE "
"""Begins the line of the answer: packages may print when they are imported."""
HEAVY = ("torch", "transformers", "accelerate", "datasets", "pandas", "peft")
"""In the order in which they are imported, so that each has its own seconds."""


def main() -> None:
    """Print progress on stderr, and the answer as the last line of stdout."""
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    answer: dict[str, Any] = {"host": host, "python": sys.version.split()[0], "prefix": sys.prefix}
    answer["imports"] = {name: timed_import(name) for name in HEAVY}
    answer["torch"] = torch_facts(sys.modules["torch"]) if "torch" in sys.modules else None
    answer["nvcc"] = nvcc_version()
    print(MARK + json.dumps(answer), flush=True)


def timed_import(name: str) -> dict[str, Any]:
    """{seconds}, and {fault} if it cannot be imported: `missing`, or the error in a line."""
    print(f"importing {name}", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        fault = "missing" if error.name == name else one_line(error)
        return {"seconds": None, "fault": fault}
    except Exception as error:  # a library that does not fit another raises whatever it likes
        return {"seconds": None, "fault": one_line(error)}
    return {"seconds": time.monotonic() - started, "version": str(getattr(sys.modules[name], "__version__", ""))}


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def torch_facts(torch: Any) -> dict[str, Any]:
    """Version, CUDA, what it was built for, and the GPUs that it sees, each tried with a real kernel."""
    build = {"version": torch.__version__, "cuda": torch.version.cuda, "archs": built_for(torch), "gpus": []}
    try:
        available = torch.cuda.is_available()
        build["gpus"] = [gpu(torch, index) for index in range(torch.cuda.device_count())] if available else []
    except Exception as error:
        build["fault"] = one_line(error)
    return build


def built_for(torch: Any) -> list[str]:
    """`["sm_70", "sm_80", …]`; get_arch_list itself is empty where no GPU is seen."""
    try:
        return str(torch._C._cuda_getArchFlags() or "").split()
    except AttributeError:  # a CPU build has no such function
        return []


def gpu(torch: Any, index: int) -> dict[str, Any]:
    """Name, architecture, memory, bf16 of one card, and whether a kernel runs on it."""
    properties = torch.cuda.get_device_properties(index)
    found = {
        "name": properties.name,
        "arch": "sm_{}{}".format(*torch.cuda.get_device_capability(index)),
        "memory": properties.total_memory,
        "fault": None,
    }
    try:
        with torch.cuda.device(index):
            # The plain question is answered True on a V100, where torch emulates it (since 2.4).
            found["bf16"] = bool(torch.cuda.is_bf16_supported(including_emulation=False))
            ones = torch.ones((8, 8), device="cuda", dtype=torch.float16)
            torch.cuda.synchronize()
            if float((ones @ ones).sum().cpu()) != 512.0:
                found["fault"] = "a product of matrices came out wrong"
    except Exception as error:
        found["fault"] = one_line(error)
    return found


def nvcc_version() -> str | None:
    """`12.4`, of the nvcc that compiled extensions would use; None without one."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    program = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"release (\d+\.\d+)", said)
    return match[1] if match else None


if __name__ == "__main__":
    main()
