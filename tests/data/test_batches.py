"""Which rows come when, and how they are stacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.data.batches import Collator, Order, Share, training_loader
from hpcft.data.features import Feature, Features, store_features, stored_features


def features(folder: Path, lengths: list[int]) -> Features:
    rows = [Feature(list(range(1, length + 1)), [True] * length) for length in lengths]
    return store_features(folder / "features", [rows], lambda: None)


@given(st.integers(0, 5), st.integers(1, 40), st.integers(1, 4))
def test_each_row_comes_once_in_every_epoch(seed: int, rows: int, epochs: int) -> None:
    stream = Order(seed, rows).stretch(0, rows * epochs)
    assert all(sorted(epoch) == list(range(rows)) for epoch in stream.reshape(epochs, rows).tolist())


@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 200), st.integers(1, 50))
def test_any_stretch_is_found_without_what_came_before(seed: int, rows: int, start: int, count: int) -> None:
    order = Order(seed, rows)
    assert order.stretch(start, count).tolist() == order.stretch(0, start + count)[start:].tolist()


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = Order(0, 50).stretch(0, 100).reshape(2, 50).tolist()
    assert first != second
    assert Order(1, 50).stretch(0, 50).tolist() != first


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_rows_under_the_same_randomness(ranks: int) -> None:
    seen = {}
    for rank in range(ranks):
        share = Share(Order(0, 100), batch_size=16, micro_batch_size=2, rank=rank, ranks=ranks)
        for step in range(3):
            for micro in range(share.accumulation):
                seen[share.micro_number(step, micro)] = share.micro_rows(step, micro).tolist()
    alone = Share(Order(0, 100), batch_size=16, micro_batch_size=2, rank=0, ranks=1)
    batches = list(alone.batches(0, 3))
    assert [seen[number] for number in sorted(seen)] == batches


def test_rows_are_padded_to_the_longest_on_the_right(tmp_path: Path) -> None:
    batch = Collator(features(tmp_path, [3, 2]), pad=0)([0, 1])
    assert batch["tokens"].tolist() == [[1, 2, 3], [1, 2, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["trained"].tolist() == [[False, True, True], [False, True, False]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_begun_late_brings_what_an_early_one_would(tmp_path: Path, workers: int) -> None:
    stored = features(tmp_path, [3, 5, 4, 2, 6, 3, 7])
    share = Share(Order(3, len(stored)), batch_size=4, micro_batch_size=2, rank=0, ranks=1)
    whole = [batch["tokens"].tolist() for batch in training_loader(stored, share, 0, 6, 0, workers)]
    late = [batch["tokens"].tolist() for batch in training_loader(stored, share, 4, 6, 0, workers)]
    assert len(whole) == 12
    assert late == whole[8:]


def test_features_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    rows = [Feature([7, 8, 9], [False, True, True]), Feature([4, 5], [True, True])]
    stored = store_features(tmp_path / "f", [rows[:1], rows[1:]], lambda: None)
    again = stored_features(tmp_path / "f")
    assert again is not None
    assert [tuple(map(np.ndarray.tolist, again[row])) for row in range(2)] == [
        ([7, 8, 9], [False, True, True]),
        ([4, 5], [False, True]),  # nothing stands before the first token to predict it from
    ]
    assert again.targets.tolist() == [2, 1]
    assert again.fingerprint == stored.fingerprint


def test_features_that_were_not_finished_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "tokens.npy").write_bytes(b"half")
    assert stored_features(tmp_path / "f") is None
    store_features(tmp_path / "f", [[Feature([1, 2], [True, True])]], lambda: None)
    assert stored_features(tmp_path / "f") is not None
