"""The files in envs/: conda reads them, and pip finds a set of packages for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hpcft.launch.envfile import read_env_file
from hpcft.launch.envfit import volta_build
from tests.conda.root import conda_root

ENVS = Path(__file__).parents[2] / "envs"


def test_conda_reads_them_as_we_do() -> None:
    conda, _ = conda_root()
    for path in sorted(ENVS.glob("*.yml")):
        code = "import sys; from conda.env.env import from_file; print(dict(from_file(sys.argv[1]).dependencies))"
        said = subprocess.run([conda.with_name("python"), "-c", code, path], capture_output=True, text=True, check=True)
        file = read_env_file(path, "x")
        assert said.stdout.strip() == str({"conda": list(file.conda), "pip": list(file.pip)})


def test_pip_resolves_them_to_a_torch_that_a_v100_still_runs(tmp_path: Path) -> None:
    """The file for CPUs wants an index of its own, which continuous integration may not reach."""
    volta, ampere = (read_env_file(ENVS / f"{name}.yml", "x") for name in ("v100", "ampere"))
    assert set(volta.pip) <= set(ampere.pip), "what resolves for one resolves for the other"
    options = ["--dry-run", "--ignore-installed", "--use-feature=fast-deps", "--only-binary=:all:"]
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "--quiet", "install", *options, f"--report={report}"]
    subprocess.run([*pip, "--python-version=3.11", "--target=unused", *ampere.pip_arguments()], check=True)
    found = {
        each["metadata"]["name"]: each["metadata"]["version"] for each in json.loads(report.read_text())["install"]
    }
    cuda = ".".join(found["nvidia-cuda-runtime-cu12"].split(".")[:2])
    assert volta_build(found["torch"], cuda) is True
    assert int(found["transformers"].split(".")[0]) == 5 and {"accelerate", "datasets", "peft"} < set(found)
