"""The tiny models and data that other tests stand on are what they say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.parts import END_OF_TEXT, make_tiny_gpt2, write_documents, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("parts") / "model")


def test_the_tiny_model_loads_like_any_other_and_its_tokenizer_takes_any_text(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == 500
    assert model.config.attn_pdrop == 0.1
    assert tokenizer.eos_token == END_OF_TEXT
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert tokenizer.pad_token is None
    for text in ("The queue waits for the node.", "  two  spaces\n\n", "žluťoučký 🐎 日本"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_same_model_comes_out_each_time_and_another_seed_makes_another(folder: Path, tmp_path: Path) -> None:
    def weights(path: Path) -> bytes:
        return (path / "model.safetensors").read_bytes()

    assert weights(make_tiny_gpt2(tmp_path / "again")) == weights(folder)
    assert weights(make_tiny_gpt2(tmp_path / "other", seed=1)) != weights(folder)


def test_rows_differ_from_each_other_and_by_seed_and_vary_in_length(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path / "a.jsonl", 200, 1).read_text().splitlines()]
    assert all(set(row) == {"question", "answer"} for row in rows)
    assert len({row["question"] for row in rows}) == 200
    lengths = sorted(len(row["question"].split()) for row in rows)
    assert lengths[0] <= 8
    assert lengths[-1] >= 40
    assert write_rows(tmp_path / "b.jsonl", 200, 1).read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert write_rows(tmp_path / "c.jsonl", 200, 2).read_bytes() != (tmp_path / "a.jsonl").read_bytes()


def test_documents_are_csv_with_a_text_column(tmp_path: Path) -> None:
    with write_documents(tmp_path / "documents.csv", 50, 3).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == [str(number) for number in range(50)]
    assert all(row["text"] for row in rows)
    assert any("\n" in row["text"] for row in rows)
