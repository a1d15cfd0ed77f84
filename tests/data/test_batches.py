"""Which rows each process gets when, and how they are stacked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcft.data.batches import Batch, Collator, Share, training_loader
from hpcft.data.features import Feature, Features
from hpcft.data.order import Integers, RowOrder, TokenOrder
from hpcft.data.packing import by_room, room_taken
from hpcft.data.preparation import Chunk, prepare
from hpcft.sections import Model
from hpcft.train.model import load_model
from tests.parts import make_tiny_gpt2, train_tokenizer, write_rows


def features(folder: Path, lengths: list[int]) -> Features:
    rows = [Feature(list(range(1, length + 1)), [True] * length) for length in lengths]
    return prepare(folder / "features", "some rows", lambda done: iter([Chunk(rows, len(rows))]), lambda: None)


KINDS = [(grouping, by) for grouping in ("plain", "bucketed", "packed") for by in ("rows", "tokens")]


def share(lengths: Integers, grouping: str, by: str, *, micro: int = 2, rank: int = 0, ranks: int = 1) -> Share:
    """Steps of 16 rows, or of about 2000 tokens, in lines of at most 256."""
    bucketed = grouping == "bucketed"
    order: RowOrder | TokenOrder = RowOrder(lengths, 0, 16, bucketed)
    if by == "tokens":
        order = TokenOrder(lengths, 0, max(1, int(lengths.sum()) // 2000), bucketed)
    return Share(order, grouping, micro, 256, rank, ranks)


def lengths_of(rows: int, seed: int = 0) -> Integers:
    """(rows,): many short ones and a few long."""
    return np.clip(np.random.default_rng(seed).lognormal(4, 0.7, rows), 8, 256).astype(np.int64)


@pytest.mark.parametrize(("grouping", "by"), KINDS)
def test_any_number_of_processes_sees_the_same_micro_batches_under_the_same_randomness(grouping: str, by: str) -> None:
    seen = []
    for ranks in (1, 2, 4):
        everyone = [share(lengths_of(300), grouping, by, rank=rank, ranks=ranks) for rank in range(ranks)]
        for step in range(40):
            assert len({one.passes(step) for one in everyone}) == 1
        numbered = {
            one.micro_number(step, number): lines
            for one in everyone
            for step in range(40)
            for number in range(one.passes(step))
            if (lines := one.lines(step, number))
        }
        seen.append(numbered)
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(("grouping", "by"), KINDS)
def test_the_micro_batches_of_a_step_hold_its_rows_once_and_keep_within_their_room(grouping: str, by: str) -> None:
    lengths = lengths_of(300)
    mine = share(lengths, grouping, by, micro=4)
    for step in range(40):
        batches = [mine.lines(step, number) for number in range(mine.passes(step))]
        rows = [row for lines in batches for line in lines for row in line]
        assert sorted(rows) == sorted(mine.step_rows(step))
        for lines in batches:
            assert all(int(lengths[line].sum()) <= 256 for line in lines)
            assert room_taken(lines, lengths)[1] <= 4 * 256
            assert grouping == "packed" or all(len(line) == 1 for line in lines)
        if by == "rows":
            assert len(batches) == 4


@pytest.mark.parametrize(("grouping", "by"), [kind for kind in KINDS if kind[0] != "plain"])
@pytest.mark.parametrize("micro", [4, 8])
def test_under_a_twentieth_of_mixed_text_is_padding(grouping: str, by: str, micro: int, written: Integers) -> None:
    mine = share(np.minimum(written, 256), grouping, by, micro=micro)
    taken = np.sum([mine.padding(step) for step in range(60)], axis=0)
    assert 1 - taken[0] / taken[1] < 0.05
    plain = np.sum([share(written, "plain", "rows", micro=micro).padding(step) for step in range(60)], axis=0)
    assert 1 - plain[0] / plain[1] > 0.3  # of the same rows in random order


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Integers:
    """(1500,): tokens of questions with their answers."""
    tokenizer = train_tokenizer()
    rows = write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 1500).read_text(encoding="utf-8").splitlines()
    texts = [" ".join(json.loads(row).values()) for row in rows]
    return np.array([len(tokens) for tokens in tokenizer(texts)["input_ids"]])


def test_padding_is_counted_over_lines_and_processes() -> None:
    lengths = np.array([6, 3, 3, 2])
    rows = np.arange(4)
    assert by_room(rows, lengths, 9) == [[[0]], [[1], [2], [3]]]
    mine = Share(RowOrder(lengths, 0, 4, bucketed=True), "bucketed", 2, 9, 1, 2)
    assert mine.padding(0) == (14, 12 + 6)
    packed = Share(RowOrder(lengths, 0, 4, bucketed=False), "packed", 2, 9, 0, 2)
    assert packed.padding(0) == (14, 8 + 6)


def test_rows_are_padded_to_the_longest_on_the_right(tmp_path: Path) -> None:
    batch = Collator(features(tmp_path, [3, 2]), pad=0)([[0], [1]])
    assert batch["tokens"].tolist() == [[1, 2, 3], [1, 2, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["trained"].tolist() == [[False, True, True], [False, True, False]]


def test_rows_of_a_packed_line_lie_one_behind_the_other_and_are_numbered(tmp_path: Path) -> None:
    batch = Collator(features(tmp_path, [3, 2, 4]), pad=0)([[0, 1], [2]])
    assert batch["tokens"].tolist() == [[1, 2, 3, 1, 2], [1, 2, 3, 4, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 0]]
    assert batch["trained"].tolist() == [[False, True, True, False, True], [False, True, True, True, False]]


def test_an_empty_micro_batch_has_no_target_and_no_gradient(tmp_path: Path) -> None:
    batch = Collator(features(tmp_path, [3]), pad=0)([])
    model = load_model(Model(path=str(make_tiny_gpt2(tmp_path / "model"))))
    loss = model(**model.inputs(batch, torch.device("cpu")))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("grouping", "by"), [("bucketed", "rows"), ("packed", "tokens")])
def test_a_loader_begun_late_brings_what_an_early_one_would(
    tmp_path: Path, workers: int, grouping: str, by: str
) -> None:
    stored = features(tmp_path, lengths_of(50).tolist())
    mine, collate = share(stored.lengths, grouping, by), Collator(stored, 0)
    whole = [batch["tokens"].tolist() for batch in training_loader(collate, mine, 0, 6, workers)]
    late = [batch["tokens"].tolist() for batch in training_loader(collate, mine, 4, 6, workers)]
    assert len(whole) == sum(mine.passes(step) for step in range(6))
    assert late == whole[sum(mine.passes(step) for step in range(4)) :]


@dataclass(frozen=True)
class Masking:
    """Hides tokens at random, as for a masked language model, with every generator that a collator may draw from."""

    collate: Collator

    def __call__(self, lines: Sequence[Sequence[int]]) -> Batch:
        batch = self.collate(lines)
        hidden = torch.rand(batch["tokens"].shape) < 0.3
        hidden[:, int(np.random.randint(hidden.shape[1]))] = True
        return {**batch, "tokens": batch["tokens"].masked_fill(hidden, random.randrange(1000, 2000))}


def test_a_collator_that_draws_at_random_draws_the_same_in_a_later_job_and_in_any_process(tmp_path: Path) -> None:
    stored = features(tmp_path, lengths_of(50).tolist())
    mine, masking = share(stored.lengths, "bucketed", "rows"), Masking(Collator(stored, 0))

    def brought(first: int, workers: int) -> list[list[list[int]]]:
        return [batch["tokens"].tolist() for batch in training_loader(masking, mine, first, 5, workers)]

    whole = brought(0, 0)
    assert whole != [batch["tokens"].tolist() for batch in training_loader(masking.collate, mine, 0, 5, 0)]
    late = whole[sum(mine.passes(step) for step in range(3)) :]
    assert (brought(0, 2), brought(3, 0), brought(3, 2)) == (whole, late, late)
