"""Rows of tokens as they reach the model, against rows written out by hand, and where their loss comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hpcft.data.batches import Batch, Collator
from hpcft.data.preparation import prepare
from hpcft.data.rows import Row
from hpcft.tasks.corpus import Corpus
from hpcft.tasks.instruct import Instruct
from hpcft.tasks.task import Task
from hpcft.template import PromptTemplate
from hpcft.train.model import LossModel
from tests.tasks.test_labelled import PATH, tokenizer_of

QUESTIONS: list[Row] = [{"q": "the queue", "a": "waits"}, {"q": "a", "a": "node runs"}, {"q": "a node", "a": "waits"}]
DOCUMENTS: list[Row] = [{"text": "the queue waits"}, {"text": "a node"}]
TOKENS = [[4, 5, 6, 50256], [7, 8, 9, 50256], [7, 8, 6, 50256]]


def instruct(full: bool, max_length: int = 10) -> Instruct:
    return Instruct(PromptTemplate("{{q}} {{a}}"), tokenizer_of("gpt2"), max_length, full)


def batch_of(task: Task, rows: list[Row], folder: Path, *lines: list[int]) -> Batch:
    """These lines of rows, padded with the end-of-text token."""
    made = prepare(folder / "train", "rows", lambda done: task.chunks(rows, PATH), lambda: None)
    return Collator(made, 50256)(lines)


def lists(batch: Batch) -> dict[str, list[list[int]]]:
    return {name: tensor.int().tolist() for name, tensor in batch.items()}


@pytest.mark.parametrize("full", [False, True])
def test_instructions_are_prompt_completion_and_end(tmp_path: Path, full: bool) -> None:
    completions = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert lists(batch_of(instruct(full), QUESTIONS, tmp_path, [0], [1], [2])) == {
        "tokens": TOKENS,
        "mask": [[1, 1, 1, 1]] * 3,
        "trained": [[0, 1, 1, 1]] * 3 if full else completions,
    }


def test_the_end_that_is_learnt_is_not_the_padding_of_the_same_token(tmp_path: Path) -> None:
    assert lists(batch_of(instruct(False), QUESTIONS, tmp_path, [0, 1], [2])) == {
        "tokens": [[*TOKENS[0], *TOKENS[1]], [*TOKENS[2], *[50256] * 4]],
        "mask": [[1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0, 0]],
        "trained": [[0, 0, 1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]],
    }


def test_documents_are_blocks_of_which_all_but_the_first_token_is_learnt(tmp_path: Path) -> None:
    assert lists(batch_of(Corpus("text", tokenizer_of("gpt2"), 4), DOCUMENTS, tmp_path, [0], [1])) == {
        "tokens": [[4, 5, 6, 50256], [7, 8, 50256, 50256]],
        "mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
        "trained": [[0, 1, 1, 1], [0, 1, 1, 0]],
    }


def test_short_documents_share_a_line_and_none_sees_another(tmp_path: Path) -> None:
    documents = [{"text": "the queue waits"}, {"text": "a node"}, {"text": "runs"}]
    assert lists(batch_of(Corpus("text", tokenizer_of("gpt2"), 3), documents, tmp_path, [0, 1], [2])) == {
        "tokens": [[4, 5, 6, 7, 8, 50256], [9, *[50256] * 5]],
        "mask": [[1, 1, 1, 2, 2, 2], [1, 1, 0, 0, 0, 0]],
        "trained": [[0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0]],
    }


@pytest.mark.parametrize("task", ["instruct", "corpus"])
def test_the_loss_on_prompt_and_padding_is_exactly_zero(tmp_path: Path, task: str) -> None:
    made, rows = (
        (instruct(False), QUESTIONS) if task == "instruct" else (Corpus("text", tokenizer_of("gpt2"), 4), DOCUMENTS)
    )
    lines = [[0, 1], [2]] if task == "instruct" else [[0], [1]]
    batch = batch_of(made, rows, tmp_path, *lines)
    torch.manual_seed(0)
    model = LossModel(GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_embd=8, n_layer=1, n_head=1, n_positions=16)))
    model.eval()
    inputs = model.inputs(batch, torch.device("cpu"))
    given: list[torch.Tensor] = []
    handle = model.inner.transformer.ln_f.register_forward_hook(lambda *call: given.append(call[2]))
    loss = model(**inputs)
    handle.remove()
    (slopes,) = torch.autograd.grad(loss, given)
    # What is predicted behind a place counts where the token behind it is learnt, and nowhere else.
    counts = torch.cat([batch["trained"][:, 1:], torch.zeros(len(lines), 1).bool()], dim=1)
    assert (slopes.abs().amax(dim=-1) > 0).tolist() == counts.tolist()
