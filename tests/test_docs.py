"""The documents say what is true."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from hpcft.schema import walltime_seconds

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", ["recipe.md", "clusters.md"])
def test_the_pages_of_keys_are_made_from_the_code(name: str) -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_pages.py"))["PAGES"][name]()
    assert (ROOT / "docs" / name).read_text() == page, "run: python docs/make_pages.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_names_every_verb() -> None:
    from hpcft.cli import app

    readme = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"`{command.callback.__name__} " in readme or f"hpcft {command.callback.__name__}" in readme


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    from hpcft.recipefile import read_recipe

    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    (tmp_path / "recipe.yaml").write_text(block[1])
    recipe = read_recipe(tmp_path / "recipe.yaml").recipe
    assert walltime_seconds(recipe.resources.walltime or "") == 7200


def test_the_page_on_changes_names_every_key_that_may_change() -> None:
    from hpcft.launch.changes import ALLOWED

    page = (ROOT / "docs" / "changing-a-run.md").read_text()
    for key in ALLOWED:
        assert f"`{key}`" in page or f"`{key}.*`" in page, key
