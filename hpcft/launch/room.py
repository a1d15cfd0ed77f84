"""Room: what a run needs on the disk, against what there is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault
from hpcft.launch.cluster import Cluster
from hpcft.recipe import Recipe
from hpcft.recipefile import RecipeFile
from hpcft.schema import memory_bytes

CHECKPOINT_BYTES = 12
"""Of each parameter in a checkpoint: its weight and AdamW's two moments, in fp32."""
MODEL_BYTES = 4
"""Of each parameter in the final model."""
GIB = 1 << 30


@dataclass(frozen=True)
class Disk:
    """What a run will write, and what there is where runs lie."""

    checkpoint: int
    """Bytes of one."""
    checkpoints: int
    """How many there are at once: those kept, and the one that is being written."""
    models: int
    """Folders of weights: the final model, and where it is kept the best with the one that takes its place."""
    model: int
    """Bytes of one of them."""
    free: int
    quota: int | None

    @property
    def needed(self) -> int:
        return self.checkpoint * self.checkpoints + self.model * self.models

    @property
    def words(self) -> str:
        """`3 checkpoints and the model`."""
        return f"{self.checkpoints} checkpoints and {'the model' if self.models == 1 else f'{self.models} models'}"


def disk(recipe: Recipe, cluster: Cluster, root: Path, parameters: int, trained: int | None = None) -> Disk:
    """The disk that a run takes below this folder, which need not exist yet; `trained` is of a part of the model."""
    quota = memory_bytes(cluster.quota) if cluster.quota else None
    trained = parameters if trained is None else trained
    size, count = trained * CHECKPOINT_BYTES, recipe.train.keep_checkpoints + 1
    if recipe.train.keep_bytes:
        count = min(count, max(2, (memory_bytes(recipe.train.keep_bytes) or 0) // max(1, size)))
    model = (trained if recipe.lora else parameters) * MODEL_BYTES
    return Disk(size, count, 3 if recipe.train.keep_best else 1, model, free_bytes(root), quota)


def free_bytes(folder: Path) -> int:
    """Bytes that a user may still write where this folder is, or will be."""
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112 - is_dir raises where none may enter
        folder = folder.parent
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def room_faults(
    file: RecipeFile, cluster: Cluster, root: Path, parameters: int, trained: int | None = None
) -> Iterator[Fault]:
    """Every reason why a model of so many parameters, of which so many are trained, has no room."""
    recipe = file.recipe
    need = disk(recipe, cluster, root, parameters, trained)
    parts = f"{need.words} take {gigabytes(need.needed)}".replace(
        "checkpoints", f"checkpoints of {gigabytes(need.checkpoint)}"
    )
    limit = memory_bytes(recipe.train.keep_bytes) if recipe.train.keep_bytes else None
    if limit is not None and limit < 2 * need.checkpoint:
        what = (
            f"train.keep_bytes = {recipe.train.keep_bytes} has no room for two checkpoints of "
            f"{gigabytes(need.checkpoint)}: the newest stays while the next one is written."
        )
        fix = f'Write "{math.ceil(2 * need.checkpoint / GIB)}G" or more.'
        yield Fault(file.where("train.keep_bytes"), what, fix)
    fix = "Name another folder with --runs."
    if (keep := recipe.train.keep_checkpoints) > 1:
        fix = f"Keep fewer than train.keep_checkpoints = {keep}, or name another folder with --runs."
    where = file.where("train.keep_checkpoints")
    if need.needed > need.free:
        yield Fault(where, f"{parts}, and {gigabytes(need.free)} are free in {root}.", fix)
    elif need.quota is not None and need.needed > need.quota:
        yield Fault(where, f"{parts}, and the quota of {cluster.name} is {gigabytes(need.quota)}.", fix)


def gigabytes(number: float) -> str:
    """`18.7 GB`, and smaller things in MB."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def gibibytes(number: float) -> str:
    """`26.1 GiB`, as cards are measured."""
    return f"{number / GIB:.1f} GiB"


def millions(number: int) -> str:
    """`1.56 billion`, `134.5 million`."""
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
