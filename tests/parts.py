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


FAMILIES = ("bert", "distilbert", "roberta", "electra", "deberta", "deberta-v2", "albert")
"""Encoders that make_tiny_encoder knows."""


def make_tiny_encoder(out: Path, family: str = "bert", *, dropout: float = 0.1, layers: int = 2, seed: int = 0) -> Path:
    """`out`, a folder: a random float32 encoder of a family and a tokenizer with [CLS], [SEP] and [PAD], 0.

    What is in the folder already is kept, so tests may share one.
    """
    if out.is_dir():
        return out
    import torch
    from transformers import AutoConfig, AutoModel

    tokenizer = train_word_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    chances = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": layers, "n_heads": 2, "hidden_dim": 64}
        chances = {"dropout": dropout, "attention_dropout": dropout, "seq_classif_dropout": dropout}
    if family == "deberta-v2":  # as DeBERTa-v3's files have it
        sizes |= {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    if family.startswith("deberta"):
        sizes |= {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
    more = {"vocab_size": len(tokenizer), "max_position_embeddings": 132, "pad_token_id": 0, **sizes, **chances}
    more["type_vocab_size"] = {"roberta": 1, "deberta": 0, "deberta-v2": 0}.get(family, 2)
    if family in ("electra", "albert"):
        more["embedding_size"] = 16  # other than the layers', as theirs is
    if family == "distilbert":
        del more["type_vocab_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, **more), dtype=torch.float32)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        model.save_pretrained(Path(folder) / "model")
        tokenizer.save_pretrained(Path(folder) / "model")
        (Path(folder) / "model").replace(out)
    return out


def train_word_tokenizer():  # type: ignore[no-untyped-def]  # transformers only where it is used
    """BERT's kind of tokenizer, of at most 400 pieces of words, trained on sentences()."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    tokenizer = BertWordPieceTokenizer()
    some = sentences(random.Random(0))
    tokenizer.train_from_iterator((next(some) for _ in range(2000)), vocab_size=400, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(f"{folder}/tokenizer.json")
        return BertTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")


def write_labelled(path: Path, n: int, task: str = "classify", seed: int = 0) -> Path:
    """`path`: n lines of a task with labels, which follow from the words: what a text is about, whether two are about
    the same, and the longer of two responses."""
    chance = random.Random(seed)
    some = sentences(chance)
    lines = []
    for _ in range(n):
        one, other = next(some), next(some)
        if task == "classify":
            about = next((word for word in ("queue", "gradient", "node") if word in one), "other")
            row = {"text": one, "label": about}
        elif task == "entail":
            same = chance.random() < 0.5
            row = {"first": one, "second": f"It says: {one if same else other}", "label": same}
        else:
            better = chance.choice(["A", "B", "Tie"])
            more, less = f"{one} {other}", next(some)
            a, b = {"A": (more, less), "B": (less, more), "Tie": (less, less)}[better]
            row = {"prompt": "What do you know?", "response_a": a, "response_b": b, "label": better}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


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
