"""The safetensors format, by hand: tensors by name as one header and one stretch of bytes that can be cut anywhere.

safetensors' own save_file writes from start to end in one call, which leaves nothing to hash or to write side by side.
(Format: a length in 8 bytes, JSON, the tensors' bytes without a gap, https://github.com/huggingface/safetensors.)
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a file lies: `spans` has its first byte and the one behind its last, after the header."""

    header: bytes
    spans: Mapping[str, tuple[int, int]]
    size: int
    """Bytes behind the header."""


def layout(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout of a file of these tensors: wide types first, so that each lies at a multiple of its own width."""
    spans, facts, place = {}, {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name]
        spans[name] = (place, place + tensor.numel() * tensor.element_size())
        place = spans[name][1]
        facts[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": list(spans[name])}
    text = json.dumps(facts).encode()
    text += b" " * (-len(text) % 8)
    return Layout(len(text).to_bytes(8, "little") + text, spans, place)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its first byte there, and the one behind its last."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    first: int
    last: int


def read_header(path: Path) -> dict[str, Stored]:
    """{name: where and what} of a file's tensors, in the order of their bytes. Raises OSError; ValueError or KeyError
    for what is no such file."""
    with path.open("rb") as file:
        start = file.read(8)
        text = file.read(min(int.from_bytes(start, "little"), path.stat().st_size))
    behind = 8 + len(text)
    types = {word: dtype for dtype, word in DTYPES.items()}
    found = {}
    for name, facts in json.loads(text).items():
        first, last = facts["data_offsets"]
        found[name] = Stored(types[facts["dtype"]], tuple(facts["shape"]), behind + first, behind + last)
    return dict(sorted(found.items(), key=lambda item: item[1].first))


def landing(stored: Mapping[str, Stored], tensors: Mapping[str, Tensor]) -> Callable[[int, memoryview], None]:
    """What puts a file's bytes, in any order and from any thread, into contiguous tensors of the stored shapes."""
    spans = [(stored[name].first, stored[name].last, flat(tensors[name])) for name in stored if tensors[name].numel()]
    ends = [last for _, last, _ in spans]

    def put(place: int, data: memoryview) -> None:
        for first, last, target in spans[bisect_right(ends, place) :]:
            begin, end = max(first, place), min(last, place + len(data))
            if begin >= end:
                return
            target[begin - first : end - first].copy_(
                torch.frombuffer(data[begin - place : end - place], dtype=torch.uint8)
            )

    return put


def flat(tensor: Tensor) -> Tensor:
    """(bytes,): the memory of a contiguous tensor, as uint8."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def as_bytes(data: bytes) -> Tensor:
    """(bytes,): the same as uint8."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def tensor_file(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The pieces of a file of these tensors, which share their memory: it must not change while they are written."""
    plan = layout(tensors)
    return [as_bytes(plan.header), *(flat(tensors[name].contiguous()) for name in plan.spans if tensors[name].numel())]
