"""Print docs/recipe.md from the classes in hpcft/recipe.py: `python docs/make_recipe_page.py > docs/recipe.md`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "hpcft" / "recipe.py"
SECTIONS = {
    "Recipe": "At the top",
    "Model": "model",
    "Data": "data",
    "Train": "train",
    "Evaluate": "evaluate",
    "Resources": "resources",
    "Notify": "notify",
}
HEAD = """\
# The recipe

One YAML file says what to train and what to ask for. Unknown and doubled keys are faults; `5e-5` is a number, `no` and
`2:00:00` are text. `--set section.key=value` overrides a key for one submission. This page is made from
`hpcft/recipe.py` by `docs/make_recipe_page.py`.
"""


def page() -> str:
    """The whole page."""
    classes = {node.name: node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.ClassDef)}
    parts = [HEAD]
    for name, title in SECTIONS.items():
        parts.append(f"\n## {title}\n\n{_words(ast.get_docstring(classes[name]))}\n")
        parts.append("\n| key | default | meaning |\n|---|---|---|\n")
        parts += [f"| `{key}` | {default} | {meaning} |\n" for key, default, meaning in fields(classes[name])]
    return "".join(parts)


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Name, default and docstring of each field."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield field.target.id, _default(field), _words(str(text)) or _choices(field)


def _default(field: ast.AnnAssign) -> str:
    if field.value is None:
        return "required"
    text = ast.unparse(field.value)
    return {"None": "-"}.get(text, "a section" if text.endswith("()") else f"`{text.strip(chr(39))}`")


def _choices(field: ast.AnnAssign) -> str:
    for node in ast.walk(field.annotation):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            return " or ".join(
                f"`{ast.literal_eval(item)}`" for item in ast.walk(node) if isinstance(item, ast.Constant)
            )
    return ""


def _words(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
