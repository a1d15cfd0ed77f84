"""`python -m tests.benchmarks.memory [MODEL]`, on a GPU: the estimate against the peak of real steps, and what fits.

Each setting trains GPT-2 XL of random weights, or the model in the folder MODEL, in a process of its own, capped to 32
and to 16 GiB of the card as a stand-in for a V100. Prints a table, and writes build/memory.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OUT = Path("build/memory.json")
LENGTH = 1024
STEPS, PASSES = 3, 2
CAPS = (32.0, 16.0)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"micro_batch_size": 1},
    {"micro_batch_size": 1, "gradient_checkpointing": True},
    {"micro_batch_size": 4, "gradient_checkpointing": True},
    {"micro_batch_size": 2, "optimizer": "adamw-8bit"},
    {"micro_batch_size": 4, "optimizer": "adamw-8bit", "gradient_checkpointing": True},
    {"micro_batch_size": 2, "sharding": "zero2", "offload": True},
    {"micro_batch_size": 4, "sharding": "full", "offload": True},
    {"micro_batch_size": 4, "lora": {"rank": 8}},
)


def recipe_values(model: str, setting: dict[str, Any], gpus: int = 1) -> dict[str, Any]:
    """A recipe with this setting, as JSON would have it."""
    train = {key: value for key, value in setting.items() if key != "lora"}
    batch = setting["micro_batch_size"] * PASSES
    return {
        "name": "memory",
        "task": "corpus",
        "model": {"path": model, "weights": "random"},
        "data": {"train": "rows.jsonl", "max_length": LENGTH},
        "train": {"steps": STEPS, "batch_size": batch, "precision": "fp16" if gpus else "fp32", **train},
        "resources": {"gpus": gpus},
        **({"lora": setting["lora"]} if "lora" in setting else {}),
    }


def train(values: dict[str, Any], cap: float | None) -> dict[str, Any]:
    """{peak: bytes of tensors, step: seconds} of real steps at their longest; {peak: None} if memory runs out."""
    import torch

    from hpcft.recipe import Recipe
    from hpcft.train.setup import compute_mode, make_accelerator, prepare_model

    recipe = Recipe.model_validate_json(json.dumps(values))
    cuda = bool(recipe.resources.gpus)
    if cap and cuda:
        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    compute_mode(recipe.train.deterministic)
    accelerator = make_accelerator(recipe)
    took = 0.0
    try:
        model, wrapped, optimizer, _ = prepare_model(recipe, recipe.model, accelerator)
        rows, length = int(values["train"]["micro_batch_size"]), recipe.data.max_length
        for _ in range(STEPS):
            started = time.perf_counter()
            for _ in range(PASSES):
                tokens = torch.randint(0, 50, (rows, length))
                trained = torch.ones_like(tokens, dtype=torch.bool)
                batch = {"tokens": tokens, "mask": torch.ones_like(tokens), "trained": trained}
                loss = wrapped(**model.inputs(batch, accelerator.device))
                accelerator.backward(loss / tokens.numel())
                del loss
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if cuda:
                torch.cuda.synchronize()
            took = time.perf_counter() - started
    except torch.OutOfMemoryError:
        return {"peak": None, "step": None}
    return {"peak": torch.cuda.max_memory_allocated() if cuda else 0, "step": took}


def estimated(values: dict[str, Any]) -> int:
    """Bytes by the estimate."""
    from hpcft.recipe import Recipe
    from hpcft.train.estimate import parts

    recipe = Recipe.model_validate_json(json.dumps(values))
    return sum(parts(recipe, values["train"]["micro_batch_size"]).values())


def main(model: str | None = None) -> int:
    """1 if an estimate is off by more than 15% of the peak."""
    worst, found = 0.0, []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        if model is None:
            from transformers import GPT2Config

            GPT2Config(n_layer=48, n_embd=1600, n_head=25, bos_token_id=0, eos_token_id=0).save_pretrained(folder)
            model = folder
        print(f"{'setting':70} {'cap':>4} {'estimate':>9} {'peak':>6} {'off':>5} {'tokens/s':>9}")
        for setting in SETTINGS:
            values = recipe_values(model, setting)
            guess = estimated(values)
            for cap in CAPS:
                command = [sys.executable, "-m", "tests.benchmarks.memory", "--train", json.dumps(values), str(cap)]
                own = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # as a job has it
                done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own)
                if done.returncode:
                    print(done.stderr, file=sys.stderr)
                    return 2
                fact = json.loads(done.stdout.splitlines()[-1])
                off = guess / fact["peak"] - 1 if fact["peak"] else None
                worst = max(worst, abs(off or 0.0))
                tokens = values["train"]["batch_size"] * LENGTH / fact["step"] if fact["step"] else None
                found.append({"setting": setting, "cap": cap, "estimate": guess, **fact, "tokens_per_second": tokens})
                peak = f"{fact['peak'] / 2**30:6.1f} {off:+5.0%} {tokens:9.0f}" if fact["peak"] else "out of memory"
                print(f"{json.dumps(setting):70} {cap:4g} {guess / 2**30:9.1f} {peak}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1))
    return int(worst > 0.15)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        print(json.dumps(train(json.loads(sys.argv[2]), float(sys.argv[3]))))
    else:
        sys.exit(main(*sys.argv[1:]))
