"""Drift: what has changed outside a run since its submission, and whether that lets it go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcft.errors import Fault
from hpcft.launch.provenance import data_files, fingerprint, model_files, provenance, same
from hpcft.recipefile import RecipeFile
from hpcft.rundir import RunDir

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json", ".gguf", ".h5", ".msgpack", ".onnx")
"""Endings of files of a model that hold weights: once a checkpoint is there, no job reads them for good."""
PROSE = (".md", ".gitattributes")
"""Endings of files of a model that no job reads."""


def drift(run: RunDir, file: RecipeFile) -> tuple[list[Fault], list[str]]:
    """Faults for which the run must not go on as it is, and sentences on what is no such fault.

    Rows are tokenised once, in the first job, and are then read from the run; the template and hpcft's own code were
    copied at the submission. So what matters is the data before that, the held-out rows between their two
    evaluations, and the model's configuration and tokenizer.
    """
    return [*_data_faults(run, file), *_model_faults(run, file)], [*_data_notes(run, file), *_model_notes(run, file)]


def tokenised(run: RunDir, split: str) -> bool:
    """Whether the rows of this split lie in the run."""
    return (run.features / split / "complete.json").exists()


def _changed_data(run: RunDir, file: RecipeFile) -> Iterator[tuple[str, str]]:
    recorded = provenance(run).get("data") or {}
    for key, path in data_files(file.recipe).items():
        if recorded.get(key) and not same(recorded[key], fingerprint(Path(path))):
            yield key, path


def _data_faults(run: RunDir, file: RecipeFile) -> Iterator[Fault]:
    half_way = (run.evaluation / "before.json").exists() and not (run.evaluation / "after.json").exists()
    for key, path in _changed_data(run, file):
        if key == "test" and not file.recipe.has_classes and file.recipe.evaluate.choices and half_way:
            what = f"{path} has changed since accuracy before training was measured on it."
            fix = f"Put it back, or give the comparison up: `hpcft resume {run.name} --set evaluate.choices=null`."
            yield Fault(file.where("data.test"), what, fix)


def _data_notes(run: RunDir, file: RecipeFile) -> Iterator[str]:
    for key, path in _changed_data(run, file):
        if key == "test" and not file.recipe.has_classes:
            continue
        if tokenised(run, key):
            yield f"{path} has changed since the submission; the run keeps the rows that it tokenised then."
        else:
            yield f"{path} has changed since the submission, and is tokenised as it is now: nothing was learnt yet."


def _changed_model(run: RunDir, file: RecipeFile) -> list[str]:
    recorded = provenance(run).get("model")
    if not recorded:
        return []
    now = model_files(file.recipe.model.path) or {}
    names = (name for name in {**recorded, **now} if not name.endswith(PROSE))
    return sorted(name for name in names if not same(recorded.get(name), now.get(name)))


def _model_faults(run: RunDir, file: RecipeFile) -> Iterator[Fault]:
    folder = Path(file.recipe.model.path)
    if not folder.is_dir() or not (tokenised(run, "train") or run.saved_steps()):
        return  # a folder that is gone is a fault of its own
    for name in _changed_model(run, file):
        if not name.endswith(WEIGHTS):
            what = f"{folder / name} has changed since the run began with it."
            yield Fault(file.where("model.path"), what, "Put it back as it was, or submit a new run.")


def _model_notes(run: RunDir, file: RecipeFile) -> Iterator[str]:
    if run.saved_steps() or not Path(file.recipe.model.path).is_dir():
        return
    begun = tokenised(run, "train")
    if changed := [name for name in _changed_model(run, file) if not begun or name.endswith(WEIGHTS)]:
        names = ", ".join(changed)
        yield f"{file.recipe.model.path} has changed since the submission ({names}); the run begins with it as it is."
