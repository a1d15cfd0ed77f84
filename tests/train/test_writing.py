"""Writing beside the training: files hold what stood when the snapshot was taken, to the last byte."""

from __future__ import annotations

import errno
import hashlib
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpcft.train import blocks
from hpcft.train.blocks import Damaged, check_files, write_files
from hpcft.train.snapshot import Snapshot
from hpcft.train.tensorfile import flat, tensor_file
from hpcft.train.writer import Writer


def some_tensors() -> dict[str, torch.Tensor]:
    """Of all widths and shapes, in an order that would leave them unaligned."""
    draw = torch.Generator().manual_seed(0)
    return {
        "flag": torch.tensor([True, False, True]),
        "codes": torch.randint(0, 255, (7,), generator=draw).to(torch.uint8),
        "scale": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(3, 5, generator=draw).half(),
        "weight": torch.randn(130, 33, generator=draw),
        "turned": torch.randn(6, 4, generator=draw).T,
        "brain": torch.randn(5, generator=draw).bfloat16(),
    }


def test_files_are_what_safetensors_reads_and_their_hashes_are_those_of_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    tensors = some_tensors()
    pieces = Snapshot(cuda=False).take({"model": tensors})["model"]
    facts = write_files(tmp_path, {"model.safetensors": pieces})["model.safetensors"]
    data = (tmp_path / "model.safetensors").read_bytes()
    assert facts["size"] == len(data) > 17_000
    cut = [data[first : first + 1000] for first in range(0, len(data), 1000)]
    assert facts["sha256"] == [hashlib.sha256(block).hexdigest() for block in cut]
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name
    write_files(tmp_path, {"direct.safetensors": tensor_file(tensors)})
    assert (tmp_path / "direct.safetensors").read_bytes() == data, "with or without a copy"


def test_each_byte_is_checked_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    facts = write_files(tmp_path, {"a": [flat(torch.arange(1000))], "b": tensor_file(some_tensors())})
    read = bytearray(facts["b"]["size"])

    def sink(place: int, data: memoryview) -> None:
        assert not any(read[place : place + len(data)])
        read[place : place + len(data)] = data

    check_files(tmp_path, facts, {"b": sink})
    assert bytes(read) == (tmp_path / "b").read_bytes()
    torn = bytearray((tmp_path / "a").read_bytes())
    torn[7999] ^= 1
    (tmp_path / "a").write_bytes(torn)
    with pytest.raises(Damaged, match=r"^a is not what was written$"):
        check_files(tmp_path, facts)
    with pytest.raises(Damaged, match=r"^b has 1 hashes for "):
        check_files(tmp_path, {"b": {**facts["b"], "sha256": facts["b"]["sha256"][:1]}})


def test_room_is_refused_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*arguments: object) -> int:
        raise AssertionError("written")

    monkeypatch.setattr(blocks.os, "pwrite", nothing)
    beyond = torch.empty(1).expand(1 << 60)  # bytes that no disk has
    with pytest.raises(OSError) as error:
        write_files(tmp_path, {"vast": [beyond]})
    assert error.value.errno in (errno.ENOSPC, errno.EFBIG)


def test_what_is_written_is_what_stood_at_the_snapshot_though_training_goes_on(tmp_path: Path) -> None:
    weight, go_on, writer = torch.ones(1000, 100), threading.Event(), Writer()
    snapshot = Snapshot(cuda=False)
    pieces = snapshot.take({"model": {"weight": weight}})["model"]

    def work() -> None:
        assert go_on.wait(60)
        write_files(tmp_path, {"model.safetensors": pieces})

    writer.start(1, work)
    for step in range(5):
        weight += step  # training
        assert writer.busy and writer.collect() is None
    with pytest.raises(RuntimeError, match="in flight"):
        writer.start(2, work)
    go_on.set()
    outcome = writer.collect(wait=True)
    assert outcome and outcome.step == 1 and outcome.error is None and not writer.busy
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], torch.ones(1000, 100))
    assert snapshot.take({"model": {"weight": weight}})["model"][1].data_ptr() == pieces[1].data_ptr(), "no new memory"


def test_a_refusal_of_the_disk_is_an_outcome_and_a_bug_is_an_error() -> None:
    writer, full = Writer(), OSError(errno.ENOSPC, "No space left on device")

    def refuse() -> None:
        raise full

    def stumble() -> None:
        raise KeyError("bug")

    writer.start(3, refuse)
    outcome = writer.collect(wait=True)
    assert outcome and outcome.error is full
    writer.start(4, stumble)
    with pytest.raises(KeyError, match="bug"):
        writer.collect(wait=True)
