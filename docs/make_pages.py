"""Write docs/recipe.md and docs/clusters.md from the classes they describe: `python docs/make_pages.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "hpcft"
RECIPE = {
    "Recipe": "At the top",
    "Model": "model",
    "Data": "data",
    "Split": "data.split",
    "Filter": "data.filter",
    "Lora": "lora",
    "Train": "train",
    "Phase": "phases",
    "Evaluate": "evaluate",
    "Generate": "evaluate.generate",
    "Resources": "resources",
    "Notify": "notify",
    "Track": "track",
}
RECIPE_HEAD = """\
# The recipe

One YAML file says what to train and what to ask for. Unknown and doubled keys are faults; `5e-5` is a number, `no` and
`2:00:00` are text. `--set section.key=value` overrides a key for one submission. This page is made from
`hpcft/recipe.py` and `hpcft/sections.py` by `docs/make_pages.py`.
"""


CLUSTER = {"Cluster": "Keys"}
CLUSTER_HEAD = """\
# Cluster files

A cluster file says what one site is like: how its Slurm is asked for GPUs, its limits, and where files belong. No
site's name stands in the code. A recipe names one by `cluster:`, and `--cluster NAME` another, by name or by path.

Shipped are `orfeo`, `jean-zay-v100`, `leonardo`, `narval`, `bridges-2`, `supercloud` and `local`, which is this
machine. They say where each fact is from, and what is not known of a site is left out. Your own lie in
`~/.config/hpcft/clusters/` and come first.

| verb | what it does |
|---|---|
| `hpcft cluster list` | all files, and which is this site's; `?` where a file names no `hosts` |
| `hpcft cluster show [NAME]` | one with all that it takes from others, and where each key stands |
| `hpcft cluster check [NAME]` | holds it against what Slurm says; each difference with its mend |
| `hpcft cluster init [-o FILE]` | drafts one from the same |

## A file of your own

Where the site is shipped, say what only you know, in `~/.config/hpcft/clusters/leonardo.yaml`:

```yaml
extends: leonardo
account: EUHPC_X00_000
```

A file may extend any other by name or by path, and one that extends its own name goes on from the shipped one. A key
replaces the other file's as a whole: `options: {}` takes its options away.

Where it is not, begin on a login node with

```bash
hpcft cluster init -o ~/.config/hpcft/clusters/ours.yaml
hpcft cluster check ours
```

and look the folders over: Slurm does not know where files belong. `check` says each difference with its line, as

```text
hpcft: ours.yaml:9: max_walltime = "18:00:00": your association or qos allows 2:00:00. Write "2:00:00".
```

## How GPUs are asked for

| the site wants | `gpu_request` |
|---|---|
| a typed gres | `gres=gpu:V100:{gpus}` |
| an untyped gres | `gres=gpu:{gpus}` |
| a number for each node | `gpus-per-node={gpus}` or `gpus-per-node=a100:{gpus}` |
| a number for the whole job | `gpus=v100-32:{gpus}`; multiplied by the nodes |
| nothing: jobs have whole nodes | `whole-nodes` |

Cores are asked for by `cpus_per_gpu`, and not at all where it is left out, since some sites hand them out themselves.
Of several nodes each gets the same, and one task: the batch process is one python on the first node.

## What a shell reads

Only `setup`, whose lines are shell. Names of Slurm's have a shape, and anything else in their place is refused. Values
of `options` and the folders of runs and envs may hold blanks, quotes and `$(...)`, and reach Slurm and python as they
are; line breaks and backslashes are refused, and `%` and `:` in the folder of runs, which Slurm and PYTHONPATH misread,
and `:` in that of an env, which PATH does.
The tables below are made from `hpcft/launch/cluster.py` by `docs/make_pages.py`.
"""


def recipe_page() -> str:
    """docs/recipe.md."""
    return _page(RECIPE_HEAD, ("recipe.py", "sections.py"), RECIPE)


def clusters_page() -> str:
    """docs/clusters.md."""
    return _page(CLUSTER_HEAD, ("launch/cluster.py",), CLUSTER)


PAGES = {"recipe.md": recipe_page, "clusters.md": clusters_page}


def _page(head: str, files: Sequence[str], sections: Mapping[str, str]) -> str:
    """The head, and a table of keys for each of these classes."""
    parsed = [node for file in files for node in ast.parse((PACKAGE / file).read_text()).body]
    classes = {node.name: node for node in parsed if isinstance(node, ast.ClassDef)}
    parts = [head]
    for name, title in sections.items():
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
    known = {"None": "-", "()": "`[]`", "Field(default_factory=dict)": "`{}`", "True": "`true`", "False": "`false`"}
    return known.get(text, "a section" if text.endswith("()") else f"`{text.strip(chr(39))}`")


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
    for file, make in PAGES.items():
        (DOCS / file).write_text(make(), encoding="utf-8")
