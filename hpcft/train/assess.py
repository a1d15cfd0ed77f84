"""A model of a run on held-out rows: `python -m hpcft.train.assess RUN SPLIT WHICH [SCRATCH]`, from `hpcft evaluate`.

WHICH is the name of a model in the run, model or best, or the step of a checkpoint. Ranks, where there are several,
come from the environment; SCRATCH is a folder that they share then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from hpcft.errors import Fault, UserError
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.train.export import source_of, step_of
from hpcft.train.labels import labelled
from hpcft.train.left import load_left, phase_of
from hpcft.train.model import load_tokenizer
from hpcft.train.setup import compute_mode, make_accelerator, make_control
from hpcft.train.testing import examine, make_test
from hpcft.train.worker import leave, quiet


def main(path: str, split: str, which: str, scratch: str = "") -> int:
    """0 when the report is written; 2 for a fault of the user's, which is said."""
    quiet()
    try:
        assess(RunDir(Path(path)), split, which, Path(scratch or path))
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def assess(run: RunDir, split: str, which: str, scratch: Path) -> None:
    """Write the report into the run's evaluation/, as SPLIT-WHICH, unless the same is there. Raises UserError."""
    whole, number = labelled(run), phase_of(run, which)
    recipe = as_it_is_here(whole.phase(number))
    compute_mode(recipe.train.deterministic)
    accelerator = make_accelerator(recipe)
    control = make_control(accelerator, int(os.environ.get("WORLD_SIZE", "1")), scratch / "stop")
    tokenizer = load_tokenizer(source_of(run))
    test = make_test(run, recipe, tokenizer, control, split, whole.features_folder(number))
    if test is None:
        raise UserError(Fault(run.name, f"its recipe has no data.{split}."))
    test.check()
    model = load_left(run, which, accelerator.device)
    name = f"step-{which}" if which.isdigit() else which
    facts = {"step": step_of(run, which), "split": split}
    out = run.evaluation / f"{split}-{name}.json"
    examine(test, model, out, recipe.evaluate.batch_size, control, accelerator.autocast, facts)


def as_it_is_here(recipe: Recipe) -> Recipe:
    """The recipe for one whole model in each process: on the GPU that there may be, else in fp32."""
    gpu = torch.cuda.is_available()
    train = {"sharding": "none", "offload": False, **({} if gpu else {"precision": "fp32"})}
    resources = {"gpus": int(gpu), "processes": None}
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=train),
            "resources": recipe.resources.model_copy(update=resources),
        }
    )


if __name__ == "__main__":
    leave(main)
