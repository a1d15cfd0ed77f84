"""A run's model as a plain folder of transformers: `python -m hpcft.train.export RUN OUT DTYPE KEEP WHICH PUSH`, which
`hpcft export` starts in the run's env."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from hpcft.disk import read_json, sync_files, sync_folder
from hpcft.errors import Fault, UserError
from hpcft.evaluation.generation import make_config
from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from hpcft.sections import Generate, Model
from hpcft.train import checkpoint
from hpcft.train.adapt import frozen_hash, load_adapted
from hpcft.train.card import write_card
from hpcft.train.classmodel import head_of, set_padding
from hpcft.train.labels import labelled
from hpcft.train.model import UNLOADABLE, LossModel, load_tokenizer, loading_fault, padding_token, pin_revision
from hpcft.train.pair import Pair
from hpcft.train.worker import quiet

UNASKED_TOKENS = 256
"""Of a completion at most, in the generation config of a recipe that says nothing of it."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main(path: str, out: str, dtype: str, keep: str, which: str, push: str = "") -> int:
    """0 when the folder is there; 2 for a fault of the user's, and nothing is there then, unless it is the hub's.

    WHICH is the name of a model in the run, model or best, or the step of a checkpoint; PUSH a repository of the hub.
    """
    quiet()
    try:
        export(RunDir(Path(path)), Path(out), dtype, bool(int(keep)), which)
        if push:
            upload(Path(out), push)
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr)
        return error.exit_code
    return 0


def export(run: RunDir, out: Path, dtype: str, keep_adapter: bool, which: str = "model") -> None:
    """Write a model that a run has left, or would leave at a checkpoint, with its adapters merged into it.

    `keep_adapter` puts them into `out`/adapter as well. Raises UserError, with nothing written.
    """
    writing = out.with_name(f".writing-{out.name}")
    shutil.rmtree(writing, ignore_errors=True)  # of an export that was killed
    try:
        writing.mkdir()
        left = run.path / which
        if which.isdigit():
            left = left_at(run, int(which), writing / "left")
        elif run.recipe.lora:
            begun(run)  # adapters go into no other weights than those that they were trained beside
        tokenizer = usable_tokenizer(run)
        model = plain_model(run, left)
        if not run.recipe.has_classes:
            settle_generation(model, tokenizer, run.recipe)
        save_as(model, DTYPES[dtype], writing)
        tokenizer.save_pretrained(writing)
        if template := run.recipe.each_phase()[-1].data.template:
            shutil.copy(template, writing / "prompt.md")
        if keep_adapter:
            (writing / "adapter").mkdir()
            for path in left.glob("adapter_*"):
                shutil.copy(path, writing / "adapter")
            sync_files(writing / "adapter")
        write_card(run, source_of(run), writing, step_of(run, which), dtype)
        shutil.rmtree(writing / "left", ignore_errors=True)
        sync_files(writing)
        writing.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {(error.strerror or str(error)).lower()}.")) from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def source_of(run: RunDir) -> Model:
    """The model that the run began with, at the commit that its first job loaded."""
    return pin_revision(run.recipe.model, run.path / "model.json")


def usable_tokenizer(run: RunDir) -> Any:
    """The tokenizer of the model that the run began with; beside a head of classes it names a padding token."""
    tokenizer = load_tokenizer(source_of(run))
    if run.recipe.has_classes and tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = padding_token(tokenizer)
    return tokenizer


def left_at(run: RunDir, step: int, folder: Path) -> Path:
    """`folder`, with what the run would leave if it ended at this checkpoint."""
    found = run.checkpoints / f"step-{step:08d}"
    if problem := checkpoint.damage(found):
        raise UserError(Fault(str(found), f"{problem}.", "Take another checkpoint."))
    model = begun(run)
    checkpoint.load_weights(checkpoint.read(run, step), model)
    model.write(folder)
    return folder


def begun(run: RunDir) -> LossModel:
    """The model as a job of this run has it before its first step. Raises UserError if its weights are others now."""
    recipe = labelled(run)
    model = load_adapted(recipe, source_of(run))
    set_padding(recipe, model, load_tokenizer(source_of(run)))
    known = [job.resumed.get("frozen_weights") for job in run.jobs() if job.resumed]
    if known and known[-1] != frozen_hash(model):
        what = f"{run.recipe.model.path} holds other weights than those that {run.name} was trained upon."
        raise UserError(Fault(run.name, what, "Put them back as they were."))
    return model


def plain_model(run: RunDir, left: Path) -> Any:
    """The model that a run has left in this folder, as transformers has it; adapters are merged, in fp32."""
    source, recipe = source_of(run), labelled(run)
    head = head_of(recipe.task, recipe.data)
    try:
        if recipe.task == "prefer":
            return Pair.from_pretrained(left)
        if not (left / "adapter_config.json").exists():
            return head.auto.from_pretrained(left)
        from peft import PeftModel

        if source.quantize:
            from hpcft.train.quantize import rounded_model

            base = rounded_model(source, head)
        else:
            where = {"revision": source.revision or "main", **head.settings}
            base = head.auto.from_pretrained(source.path, dtype=torch.float32, **where)
        if recipe.has_classes:
            base.config.pad_token_id = usable_tokenizer(run).pad_token_id
        return PeftModel.from_pretrained(base, left).merge_and_unload()
    except UNLOADABLE as error:
        raise UserError(loading_fault("model", str(left), error)) from error


def settle_generation(model: Any, tokenizer: Any, recipe: Recipe) -> None:
    """Give the model the settings that its recipe writes by, as its generation config; the base's own go, but for the
    tokens that end a text."""
    generate = recipe.evaluate.generate or Generate(max_new_tokens=UNASKED_TOKENS)
    model.generation_config = make_config(model, tokenizer, generate, padding_token(tokenizer))


def step_of(run: RunDir, which: str) -> int:
    """The step that a model of the run was trained to: `model`, `best`, or a checkpoint's step."""
    if which.isdigit():
        return int(which)
    facts = run.finished if which == run.final_model.name else read_json(run.path / which / "best.json")
    return int((facts or {"step": 0})["step"])


def upload(folder: Path, repository: str) -> None:
    """Put a folder into a repository of the hub, made private if there is none. Raises UserError with its words."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"{folder.name}, by hpcft export")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:  # a proxy may answer no JSON
        words = str(error).strip().splitlines()
        what = f"the hub has not taken it: {words[0] if words else type(error).__name__}"
        fix = f"{folder} is whole; `hf auth login` gives you a token, `hf upload` tries again."
        raise UserError(Fault(f"--push {repository}", what, fix)) from error


def save_as(model: Any, dtype: torch.dtype, folder: Path) -> None:
    """Write a model in this precision. Raises UserError where a weight is too large for it."""
    model.to(dtype)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        what = f"--dtype: a weight of this model is too large for {str(dtype).removeprefix('torch.')}."
        raise UserError(Fault("hpcft export", what, "Use bf16 or fp32."))
    model.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
