"""Tiny local models and data for tests: made in a second or two, the same every time, without a network."""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
"""The tiny models' only special token; like GPT-2 they have none for padding."""

PLACES = {
    "Trieste": "Italy", "Lyon": "France", "Graz": "Austria", "Utrecht": "the Netherlands",
    "Porto": "Portugal", "Bergen": "Norway", "Gdańsk": "Poland", "Zürich": "Switzerland",
    "Málaga": "Spain", "Kyoto": "Japan",
}  # fmt: skip
THINGS = (
    "node",
    "queue",
    "gradient",
    "checkpoint",
    "learning rate",
    "tokenizer",
    "batch",
    "walltime",
    "loss curve",
)
DEEDS = (
    "waits for",
    "is cheaper than",
    "depends on",
    "comes before",
    "is written after",
    "never overtakes",
    "slows",
)
REASONS = (
    "because memory is short",
    "as long as nobody cancels the job",
    "which the log shows",
    "at least on two GPUs",
    "although the manual says otherwise",
    "unless the partition is full",
)


def make_tiny_gpt2(
    out: Path,
    *,
    dropout: float = 0.1,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    vocabulary: int = 500,
    positions: int = 256,
    seed: int = 0,
) -> Path:
    """`out`, a folder: a random float32 GPT-2 and a byte-level BPE tokenizer, as save_pretrained leaves them.

    Any text can be encoded. What is in the folder already is kept, so tests may share one.
    """
    if out.is_dir():
        return out
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = train_tokenizer(vocabulary)
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        embd_pdrop=dropout,
        resid_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=end,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's randomness stays as it is
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        model.save_pretrained(Path(folder) / "model")
        tokenizer.save_pretrained(Path(folder) / "model")
        (Path(folder) / "model").replace(out)
    return out


def train_tokenizer(vocabulary: int = 500):  # type: ignore[no-untyped-def]  # transformers only where it is used
    """A byte-level BPE tokenizer of at most so many tokens, trained on sentences()."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = sentences(random.Random(0))
    tokenizer.train_from_iterator((next(some) for _ in range(2000)), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=END_OF_TEXT
    )


def write_rows(path: Path, n: int, seed: int = 0) -> Path:
    """`path`: n lines {"question": ..., "answer": ...}; all questions differ.

    Questions have 6 to 90 words, answers 1 to 60.
    """
    chance = random.Random(seed)
    some = sentences(chance)
    lines = []
    for number in range(n):
        city, country = chance.choice(list(PLACES.items()))
        if chance.random() < 0.5:
            question, answer = f"In which country is {city} ({number})?", country
        else:
            context = " ".join(next(some) for _ in range(chance.randint(1, 4)))
            question = f"{context} What follows from note {number}, and why?"
            answer = " ".join(next(some) for _ in range(chance.randint(1, 3)))
        lines.append(json.dumps({"question": question, "answer": answer}, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_documents(path: Path, n: int, seed: int = 0) -> Path:
    """`path`: a CSV file of n documents, columns number and text: 1 to 30 sentences, some with newlines."""
    chance = random.Random(seed)
    some = sentences(chance)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text"])
        for number in range(n):
            length = min(30, 1 + int(chance.expovariate(1 / 6)))  # many short ones, a few long
            between = chance.choice([" ", " ", "\n"])
            writer.writerow([number, between.join(next(some) for _ in range(length))])
    return path


def sentences(chance: random.Random) -> Iterator[str]:
    """English-like sentences without end: 'The gradient depends on the queue, which the log shows.'"""
    while True:
        one, other = chance.sample(THINGS, 2)
        sentence = f"the {one} {chance.choice(DEEDS)} the {other}"
        if chance.random() < 0.4:
            sentence += f", {chance.choice(REASONS)}"
        if chance.random() < 0.3:
            sentence = f"in {chance.choice(list(PLACES))} {sentence}"
        if chance.random() < 0.1:
            sentence += f" ({chance.randint(2, 999)} times)"
        yield f"{sentence[0].upper()}{sentence[1:]}."
