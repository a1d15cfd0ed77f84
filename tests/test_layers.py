"""The folder tells the machine: imports between hpcft's folders run one way, and the login node loads no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hpcft

ROOT = Path(hpcft.__file__).parent
SCHEMA = {"schema", "yamlfile", "errors"}
RUN = {"rundir", "disk", "recipe", "sections", *SCHEMA}
ROWS = {"textrows", "parquetrows", "rowfaults"}
BASE = {"children", "scratch", "borrow", "ending", "interval", "template", "recipefile", "matrix", *ROWS, *RUN}
ALLOWED = {
    "errors": set(),
    "interval": set(),
    "template": set(),
    "textrows": {"errors"},
    "parquetrows": {"textrows", "errors"},
    "rowfaults": {"errors"},
    "children": set(),
    "disk": {"errors"},
    "scratch": {"disk", "errors"},
    "yamlfile": {"errors"},
    "schema": {"errors"},
    "sections": {"schema", "errors"},
    "recipe": {"sections", "schema", "errors"},
    "matrix": {"schema", "errors"},
    "recipefile": {"recipe", "sections", "matrix", *SCHEMA},
    "rundir": {"recipe", "sections", "disk", *SCHEMA},
    "borrow": RUN,
    "ending": RUN,
    "curves": BASE,
    "launch": BASE,
    "job": {"launch", "curves", *BASE},
    "data": BASE,
    "tasks": {"data", *BASE},
    "evaluation": {"tasks", "data", "curves", *BASE},
    "train": {"evaluation", "tasks", "data", "curves", *BASE},
    "report": {"launch", "curves", *BASE},
    "cli": {"report", "launch", "curves", *BASE},
}
"""For each folder, or file beside them, those that it may import from; everyone may import itself."""
BY_NAME = {("launch/scheduler.py", "hpcft.job.supervisor"), ("train/probe.py", "name")}
"""Imports by name that go against the order, and are explained where they stand."""
HEAVY = ("torch", "transformers", "datasets", "pandas", "accelerate", "peft", "safetensors", "tokenizers")


def part(path: Path) -> str:
    """`launch` for hpcft/launch/plan.py, `recipe` for hpcft/recipe.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[str]:
    """Every module that a file imports, also inside functions: `hpcft.launch.plan`, `json`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it goes"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def by_name(tree: ast.AST) -> list[str]:
    """Modules named in import_module("...") and __import__("..."); the expression where it is no name."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        ast.literal_eval(name) if isinstance(name := call.args[0], ast.Constant) else ast.unparse(name)
        for call in calls
        if (getattr(call.func, "attr", None) or getattr(call.func, "id", "")) in ("import_module", "__import__")
    ]


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    assert {part(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    tree, here = ast.parse(path.read_text()), part(path)
    parts = {name.split(".")[1] for name in imported(tree) if name.startswith("hpcft.")}
    assert parts - {here} - ALLOWED[here] - {"__version__"} == set()
    assert {(str(path.relative_to(ROOT)), name) for name in by_name(tree)} <= BY_NAME


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_workers_folders_name_torch_and_its_kind(path: Path) -> None:
    if part(path) in ("data", "tasks", "evaluation", "train"):
        return
    heavy = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))} & set(HEAVY)
    assert heavy == set()


def test_the_judge_sees_imports_inside_functions_and_by_name() -> None:
    tree = ast.parse("def f():\n from hpcft.train import loop\n import torch.nn\n importlib.import_module('hpcft.x')\n")
    assert (imported(tree), by_name(tree)) == (["hpcft.train.loop", "torch.nn"], ["hpcft.x"])


def loaded_after(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_help_loads_nothing_heavy_and_not_even_the_schema() -> None:
    loaded = loaded_after(
        "import hpcft.cli\nsys.argv = ['hpcft', '--help']\ntry: hpcft.cli.main()\nexcept SystemExit: pass"
    )
    assert "typer" in loaded
    assert loaded & {*HEAVY, "numpy", "tensorboard", "pydantic", "yaml", "rich", "submitit"} == set()


def test_all_that_the_login_node_and_the_batch_process_import_loads_nothing_heavy() -> None:
    modules = [
        path for path in FILES if part(path) in ("cli", "report", "launch", "job") and path.name != "__init__.py"
    ]
    names = ", ".join("hpcft." + ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules)
    loaded = loaded_after(f"import {names}, hpcft.curves.stitch")
    assert {"submitit", "pydantic"} <= loaded
    assert loaded & set(HEAVY) == set()
