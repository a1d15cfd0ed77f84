"""The env held against recipe and cluster before anything is queued: what it lacks, and what to type about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcft.errors import Fault, UserError
from hpcft.launch.cluster import Cluster
from hpcft.launch.condaenv import Env, read_facts
from hpcft.launch.envrecord import recorded_archs
from hpcft.launch.rowcheck import FORMATS
from hpcft.launch.trackfit import tracker_modules
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile

OLDEST = (3, 11)
"""Python that hpcft runs on."""
SUPERVISOR = {"submitit": "submitit", "pydantic": "pydantic", "yaml": "PyYAML"}
"""Module and package of what the batch process imports before it can say anything."""
WORKERS = ("torch", "transformers", "accelerate", "safetensors", "numpy", "tensorboard")
"""What the workers import; module and package have one name."""

VOLTA = {
    "11.8": ((2, 0), (2, 7)),
    "12.1": ((2, 1), (2, 5)),
    "12.4": ((2, 4), (2, 6)),
    "12.6": ((2, 6), (2, 14)),
    "12.9": ((2, 8), (2, 8)),
}
"""By CUDA: the oldest and the newest official torch that is known to be built for sm_70."""
VOLTA_12_8 = {(2, 7): False, (2, 8): True, (2, 9): True, (2, 10): True}
"""With CUDA 12.8 it came late and went with 2.11, whose cuDNN has no Volta."""
VOLTA_TORCH = "torch==2.10.*"
"""The newest torch on PyPI that is built for sm_70."""


def modules_needed(recipe: Recipe) -> tuple[str, ...]:
    """Modules that the workers of this recipe will import."""
    sections = [each.data for each in recipe.each_phase()]
    files = [path for data in sections for path in (data.train, data.validation, data.test) if path]
    more = ["pyarrow"] if any(path.endswith(".parquet") for path in files) else []
    more += ["datasets"] if any(Path(path).suffix not in FORMATS for path in files) else []
    more += ["peft"] if recipe.lora else []
    more += ["bitsandbytes"] if recipe.model.quantize or recipe.train.optimizer == "adamw-8bit" else []
    return (*WORKERS, *more)


def env_faults(env: Env, file: RecipeFile, cluster: Cluster | None) -> list[Fault]:
    """Every reason why jobs of this recipe would fail in this env, as far as its files tell."""
    where = file.where("env")
    needed = modules_needed(file.recipe) if "data" not in file.doubtful else WORKERS
    trackers = tracker_modules(file.recipe) if "track" not in file.doubtful else ()
    try:
        facts = read_facts(env, (*SUPERVISOR, *needed, *trackers), where)
    except UserError as error:
        return list(error.faults)
    absent = [name for name in facts["missing"] if name in trackers]
    facts = {**facts, "missing": [name for name in facts["missing"] if name not in trackers]}
    sure = cluster is not None and "resources" not in file.doubtful
    return [
        *package_faults(env, facts, where, cluster),
        *(torch_faults(env, facts, file, cluster) if sure else ()),
        *(_tracker_faults(env, absent, file) if absent else ()),
    ]


def _tracker_faults(env: Env, absent: Sequence[str], file: RecipeFile) -> Iterator[Fault]:
    """Packages of other trackers that are not there."""
    what = f"the env {env.prefix} has no {', '.join(absent)}, which track.to asks for."
    packages = ["mlflow-skinny" if name == "mlflow" else name for name in absent]
    yield Fault(file.where("track.to"), what, install(env, packages))


def package_faults(env: Env, facts: dict[str, Any], where: str, cluster: Cluster | None) -> Iterator[Fault]:
    """An old python, and packages that are not there."""
    python = tuple(int(part) for part in facts["python"].split("."))
    if python[:2] < OLDEST:
        what = f"the env {env.prefix} has python {facts['python']}, and hpcft needs {OLDEST[0]}.{OLDEST[1]}."
        yield Fault(where, what, "Make it anew with `python=3.11`.")
        return  # what it has is of no use there
    missing = [name for name in facts["missing"] if name in SUPERVISOR]
    if missing:
        what = f"the env {env.prefix} has no {', '.join(missing)}, which every job needs."
        yield Fault(where, what, "Install hpcft there.")
    if lacking := [name for name in facts["missing"] if name not in SUPERVISOR]:
        volta = cluster is not None and cluster.gpu_arch == "sm_70"
        wanted = [VOLTA_TORCH if name == "torch" and volta else name for name in lacking]
        what = f"the env {env.prefix} has no {', '.join(lacking)}, which training needs."
        yield Fault(where, what, install(env, wanted))


def install(env: Env, packages: Sequence[str]) -> str:
    """The line that installs these into the env, to be typed as it stands."""
    return f"Run `{shlex.join([str(env.python), '-m', 'pip', 'install', *packages])}`."


def torch_faults(env: Env, facts: dict[str, Any], file: RecipeFile, cluster: Cluster | None) -> Iterator[Fault]:
    """A torch that cannot compute on the cluster's GPU."""
    build = facts["torch"]
    if build is None or cluster is None or not file.recipe.resources.gpus:
        return
    card = f"{cluster.name}'s {cluster.gpu or 'GPU'}"
    volta = cluster.gpu_arch == "sm_70"
    wanted = [VOLTA_TORCH if volta else "torch"]
    has = f"the env {env.prefix} has torch {build['version']}"
    if build["version"] and not build["cuda"] and not build["hip"]:
        what = f"{has}, a build without CUDA, and resources.gpus = {file.recipe.resources.gpus}."
        yield Fault(
            file.where("env"), what, f"{install(env, ['--force-reinstall', *wanted])[:-1]}, or write `gpus: 0`."
        )
    elif cluster.gpu_arch and built_for(env, build, cluster.gpu_arch) is False:
        what = f"{has}, which is not built for {cluster.gpu_arch}, {card}: its jobs would end in `no kernel image`."
        yield Fault(file.where("env"), what, install(env, wanted))


def built_for(env: Env, build: dict[str, Any], arch: str) -> bool | None:
    """Whether this torch has kernels for the architecture; None where neither a check nor the table says so."""
    archs = recorded_archs(env, build)
    if archs is not None:
        return runs_on(archs, arch)
    official = build["installer"] in ("pip", "uv")  # conda-forge's builds have lists of their own
    return volta_build(build["version"], build["cuda"]) if official and arch == "sm_70" else None


def runs_on(archs: Sequence[str], arch: str) -> bool:
    """Whether code for these architectures runs on a card of that one: same major, or PTX that is compiled there."""
    card = _number(arch)
    for name in archs:
        built = _number(name)
        if built <= card and (name.startswith("compute_") or built // 10 == card // 10):
            return True
    return False


def _number(arch: str) -> int:
    """86 of `sm_86`, 90 of `sm_90a`."""
    return int("".join(re.findall(r"\d", arch)) or 0)


def volta_build(version: str | None, cuda: str | None) -> bool | None:
    """Whether an official wheel of this torch and CUDA has sm_70; None for one that nobody has looked at."""
    match = re.match(r"(\d+)\.(\d+)", version or "")
    if match is None or cuda is None:
        return None
    torch = (int(match[1]), int(match[2]))
    if cuda == "12.8":
        return False if torch > (2, 10) else VOLTA_12_8.get(torch)
    if int(cuda.partition(".")[0]) >= 13:
        return False  # CUDA 13 has no Volta
    oldest, newest = VOLTA.get(cuda, ((9, 9), (0, 0)))
    return True if oldest <= torch <= newest else None
