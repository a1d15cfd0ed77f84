"""Snapshots: copies of the training's tensors in host memory, from which files are written while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from hpcft.train.blocks import threads
from hpcft.train.tensorfile import Layout, as_bytes, layout

Files = Mapping[str, Mapping[str, Tensor]]
"""{file: {name: tensor}}."""
PORTABLE = 1
"""cudaHostRegisterPortable."""


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; of one that is sharded (a DTensor) all of it, for which every process must call this."""
    gather: Any = getattr(tensor, "full_tensor", None)
    full: Tensor = gather() if gather else tensor
    return full.detach()


def take_part(files: Files) -> None:
    """What the other processes do while the first takes a snapshot of sharded tensors: give their shards."""
    for tensors in files.values():
        for name in layout(tensors).spans:
            whole(tensors[name])


class Snapshot:
    """Host memory for a copy of some files' tensors: taken once, pinned where they lie on a GPU, and used again."""

    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda
        self._buffers: dict[str, Tensor] = {}

    def prepare(self, sizes: Mapping[str, int]) -> None:
        """Take the memory now, in bytes for each file, for what would be slow at the first save."""
        for file, size in sizes.items():
            if file not in self._buffers or self._buffers[file].numel() != size:
                self._release(file)
                self._buffers[file] = self._memory(size)

    def take(self, files: Files) -> dict[str, list[Tensor]]:
        """{file: pieces} of a copy, whole when this returns; it stays until the next is taken."""
        plans = {file: layout(tensors) for file, tensors in files.items()}
        self.prepare({file: plan.size for file, plan in plans.items()})
        copies = [copy for file, plan in plans.items() for copy in self._copies(file, plan, files[file])]
        if self._cuda:
            for target, source in copies:
                target.copy_(whole(source), non_blocking=True)
            torch.cuda.synchronize()
        else:
            # One core does not fill a memory bus, and torch's own threads are what the recipe pins.
            with ThreadPoolExecutor(threads(), "hpcft-copy") as pool:
                for done in [pool.submit(target.copy_, whole(source)) for target, source in copies]:
                    done.result()
        return {file: [as_bytes(plan.header), self._buffers[file]] for file, plan in plans.items()}

    def _copies(self, file: str, plan: Layout, tensors: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(place in the buffer, tensor) for each tensor of a file."""
        buffer = self._buffers[file]
        return [
            (buffer[first:last].view(tensors[name].dtype).view(tensors[name].shape), tensors[name])
            for name, (first, last) in plan.spans.items()
        ]

    def _release(self, file: str) -> None:
        if (memory := self._buffers.pop(file, None)) is not None and memory.is_pinned():
            _cuda().cudaHostUnregister(memory.data_ptr())

    def _memory(self, size: int) -> Tensor:
        """(size,) of uint8, every page of it there."""
        memory = torch.zeros(size, dtype=torch.uint8)
        if self._cuda and size:
            # Not pin_memory=True: torch's allocator rounds up to a power of two, 32 GB for 19.
            code = int(_cuda().cudaHostRegister(memory.data_ptr(), size, PORTABLE))
            if code:
                print(f"hpcft: {size} bytes cannot be pinned (CUDA error {code}): saves will stall longer", flush=True)
        return memory
