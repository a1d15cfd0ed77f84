"""Snapshots: copies of the training's tensors in host memory, from which files are written while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from hpcft.train.blocks import threads
from hpcft.train.tensorfile import as_bytes, layout

Files = Mapping[str, Mapping[str, Tensor]]
"""{file: {name: tensor}}."""
PORTABLE = 1
"""cudaHostRegisterPortable."""


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of it (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; of one that is sharded all of it, for which every process must call this."""
    gather: Any = getattr(tensor, "full_tensor", None)
    full: Tensor = gather() if gather else tensor
    return full.detach()


def as_sharded(full: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, of which this process keeps its part if `like` is sharded and has this shape."""
    if not is_sharded(like):
        return full
    if full.shape != like.shape:
        return full.to(like.device)
    from hpcft.train.sharding import share_of  # not every job has need of it

    return share_of(full, like)


def take_part(files: Files) -> None:
    """What the other processes do while the first takes a snapshot of sharded tensors: give their shards."""
    for tensors in files.values():
        for name in layout(tensors).spans:
            whole(tensors[name])


def copy(target: Tensor, source: Tensor) -> None:
    """Copy one tensor, in the thread that calls this."""
    target.copy_(source.detach())


def copy_beside(copies: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], object]:
    """Copy from the GPU in a stream of its own, behind all that is asked of the GPU so far; gives what waits for it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for target, source in copies:
            target.copy_(source.detach(), non_blocking=True)
    wait: Callable[[], object] = stream.record_event().synchronize
    return wait


class Snapshot:
    """Host memory for a copy of some files' tensors: taken once, pinned where they lie on a GPU, and used again."""

    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[str, dict[str, Tensor]] = {}
        self._preparing: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._waits: list[Callable[[], object]] = []

    def prepare_beside(self, files: Files) -> None:
        """Take the memory in a thread of its own: pages that were never used would slow the first save down."""
        sizes = {file: layout(tensors).size for file, tensors in files.items()}
        self._preparing = threading.Thread(target=self._prepare, args=(sizes,), name="hpcft-memory", daemon=True)
        self._preparing.start()

    def begin(self, files: Files) -> dict[str, list[Tensor]]:
        """{file: pieces} of a copy that is made beside the training: `wait` before a tensor changes or a piece is read.

        The copy stays until the next is begun. Of what is sharded it is whole when this returns.
        """
        if self._preparing:
            self._preparing.join()
            self._preparing = None
        plans = {file: layout(tensors) for file, tensors in files.items()}
        self._prepare({file: plan.size for file, plan in plans.items()})
        for file, plan in plans.items():
            buffer = self._buffers[file]
            self._views[file] = {
                name: buffer[first:last].view(files[file][name].dtype).view(files[file][name].shape)
                for name, (first, last) in plan.spans.items()
            }
        copies = [(view, files[file][name]) for file in plans for name, view in self._views[file].items()]
        if any(is_sharded(source) for _, source in copies):
            for target, source in copies:
                target.copy_(whole(source))
            self._waits = []
        elif self._cuda:
            self._waits = [copy_beside(copies)]
        else:
            # One core does not fill a memory bus, and torch's own threads are what the recipe pins.
            self._pool = self._pool or ThreadPoolExecutor(threads(), "hpcft-copy")
            self._waits = [self._pool.submit(copy, target, source).result for target, source in copies]
        return {file: [as_bytes(plan.header), self._buffers[file]] for file, plan in plans.items()}

    def wait(self) -> None:
        """Until the copy is whole; from any thread."""
        for done in self._waits:
            done()

    def take(self, files: Files) -> dict[str, list[Tensor]]:
        """{file: pieces} of a copy that is whole when this returns."""
        pieces = self.begin(files)
        self.wait()
        return pieces

    def tensors(self, file: str) -> Mapping[str, Tensor]:
        """{name: tensor} of the copy of a file."""
        return self._views[file]

    def _prepare(self, sizes: Mapping[str, int]) -> None:
        for file, size in sizes.items():
            if file not in self._buffers or self._buffers[file].numel() != size:
                self._release(file)
                self._buffers[file] = self._memory(size)

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
