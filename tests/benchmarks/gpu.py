"""GPT-2 XL on a GPU: `python -m tests.benchmarks.gpu`, wherever one is at hand; says so and leaves where none is.

A larger card stands in for a V100: each training may have 32 GB or 16 GB of it. Weights are random, the recipe and the
trainer are the real ones. To build/bench-gpu.json; about 20 GB of disk are needed for the exactness over cuts.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hpcft.recipe import Recipe
from hpcft.rundir import RunDir
from tests.benchmarks.rows import Row, report
from tests.benchmarks.work import TEMPLATE, make_run, tokenizer_of, write_prompts

CARDS = (32, 16)
"""GB of a V100."""
STEPS = 8
BATCH = 4
TOKENS = 1000
LENGTH = 1024
XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": LENGTH, "vocab_size": 50257}
SMALL = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": LENGTH, "vocab_size": 50257}
Values = dict[str, dict[str, Any]]


def main() -> int:
    """The exit code."""
    if not torch.cuda.is_available():
        print(f"skipped: torch {torch.__version__} sees no GPU here")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        make_parts(folder)
        rows = [*fitting_rows(folder), *beside_trl(folder), deterministic_row(folder), exactness_row(folder)]
    return report(rows, Path("build/bench-gpu.json"))


def make_parts(folder: Path) -> None:
    """Two shapes of GPT-2 with a tokenizer, and rows of the full length."""
    from transformers import GPT2Config

    for name, shape in (("xl", XL), ("small", SMALL)):
        tokenizer = tokenizer_of(folder / name)
        GPT2Config(**shape).save_pretrained(folder / name)
    (folder / "prompt.md").write_text(TEMPLATE)
    write_prompts(folder / "train.jsonl", tokenizer, STEPS * BATCH, TOKENS, TOKENS, seed=1)


def make(folder: Path, name: str, model: str, train: Mapping[str, Any], **sections: Any) -> RunDir:
    """A run of GPT-2 XL, or of the small one, with these keys of `train`."""
    values: Values = {
        "model": {"path": f"./{model}", "weights": "random"},
        "data": {"train": "train.jsonl", "template": "prompt.md", "loss_on": "full", "max_length": LENGTH},
        "train": {"steps": 1000, "batch_size": BATCH, "micro_batch_size": BATCH, "precision": "fp16", **train},
        "resources": {"gpus": 1},
        **sections,
    }
    return make_run(folder, name, values)


def fitting_rows(folder: Path) -> Iterator[Row]:
    """For each card the settings that the estimate names: whether they fit, and the peak beside the estimate."""
    from hpcft.train.estimate import estimate

    adapters = {"lora": {"rank": 8}, "model": {"path": "./xl", "weights": "random"}}
    for card in CARDS:
        for kind, sections in (("all weights", {}), ("LoRA", adapters)):
            plain = make(folder, f"{kind[:4].strip().lower()}-{card}", "xl", {}, **sections)
            found = estimate(plain.recipe, card)
            named = [(kind, {}, found["total"])] if found["fits"] else []
            named += [
                (f"{kind}, {' '.join(each['set'])}", keys(each["set"]), each["total"]) for each in found["settings"]
            ]
            if not named:
                print(f"{card} GB, {kind}: the estimate names no settings")
            for number, (words, changes, total) in enumerate(named):
                run = make(folder, f"{plain.name}-{number}", "xl", changes, **sections)
                said = measure("hpcft", run, card)
                name = f"{card} GB, {words}: estimated beside measured peak"
                peak = float("inf") if "out_of_memory" in said else said["peak"] / 2**30
                yield Row(name, total / 2**30, peak, "within 15%", abs(total / 2**30 / peak - 1) <= 0.15, "GiB")
                if "seconds" in said:
                    print(f"{card} GB, {words}: {speed(said, run.recipe)}")


def keys(overrides: list[str]) -> dict[str, Any]:
    """`["train.offload=true"]` as {"offload": True}."""
    import yaml

    pairs = (text.removeprefix("train.").split("=", 1) for text in overrides)
    return {key: yaml.safe_load(value) for key, value in pairs}


def beside_trl(folder: Path) -> Iterator[Row]:
    """The largest card with gradient checkpointing, at the largest micro-batch that each of them manages."""
    best: dict[str, dict[str, float]] = {}
    for side in ("hpcft", "trl"):
        for micro in (4, 2, 1):
            run = make(
                folder, f"beside-{side}-{micro}", "xl", {"micro_batch_size": micro, "gradient_checkpointing": True}
            )
            if side == "trl":
                (run.path / "features").symlink_to(folder / "runs" / "beside-hpcft-4" / "features")
            said = measure(side, run, CARDS[0])
            if "seconds" in said:
                print(f"{side}, micro-batch {micro}: {speed(said, run.recipe)}, peak {said['peak'] / 2**30:.1f} GiB")
            if "seconds" in said and rate(said) > rate(best.get(side, {})):
                best[side] = said
    ours, peer = (rate(best.get(side, {})) for side in ("hpcft", "trl"))
    yield Row("GPT-2 XL beside TRL at its best setting", ours, peer, "faster", ours > peer, "tokens/s")
    ours, peer = (best.get(side, {"peak": float("inf")})["peak"] / 2**30 for side in ("hpcft", "trl"))
    yield Row("its memory", ours, peer, "less", ours < peer, "GiB")


def deterministic_row(folder: Path) -> Row:
    """What `train.deterministic` costs, on GPT-2 small."""
    found = [
        measure("hpcft", make(folder, f"bits-{on}", "small", {"deterministic": on}), CARDS[0]) for on in (True, False)
    ]
    ours, peer = map(rate, found)
    return Row("deterministic beside not", ours, peer, "0.9 times", ours >= 0.9 * peer, "tokens/s")


def exactness_row(folder: Path) -> Row:
    """A run cut twice beside the same run in one piece: tensors of the final model that differ."""
    hashes = []
    for name, cuts in (("whole", ()), ("cut", (3, 6))):
        run = make(folder, name, "small", {"steps": 9, "save_every": 3})
        for number, stop_at in enumerate((*cuts, 0), 1):
            command = [sys.executable, "-m", "tests.benchmarks.gpu_cut", str(run.path), str(number), str(stop_at)]
            subprocess.run(command, check=True)
        hashes.append(tensor_hashes(run.final_model))
    whole, cut = hashes
    differ = sum(whole[key] != cut[key] for key in whole)
    return Row("tensors that differ after two cuts", differ, len(whole), "none", differ == 0, "tensors")


def tensor_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a model."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return {key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in tensors.items()}


def measure(side: str, run: RunDir, card: int) -> dict[str, float]:
    """What a process says that trains with so many GB."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu_sides", side, str(run.path), str(card), str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{run.name}: {done.stderr[-3000:]}")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def rate(said: Mapping[str, float]) -> float:
    """Tokens a second; 0 for what did not fit."""
    return said["tokens"] / said["seconds"] if "seconds" in said else 0.0


def speed(said: Mapping[str, float], recipe: Recipe) -> str:
    """Tokens a second and the MFU in words."""
    from hpcft.train import flops

    best = flops.peak(torch.cuda.get_device_name(), recipe.train.precision)
    weights = 12 * XL["n_layer"] * XL["n_embd"] ** 2 + XL["n_embd"] * XL["vocab_size"]
    token = 6 * weights + 12 * XL["n_layer"] * XL["n_embd"] * TOKENS  # arXiv 2204.02311, appendix B
    mfu = f"{token * rate(said) / best:.1%}" if best and recipe.lora is None else "unknown"
    return f"{rate(said):.0f} tokens/s, MFU {mfu}"


if __name__ == "__main__":
    sys.exit(main())
