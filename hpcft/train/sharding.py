"""Sharding: weights, gradients and moments shared among the processes, layer by layer (FSDP2, torch's fully_shard)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from hpcft.sections import Train
from hpcft.train.adapt import layer_list
from hpcft.train.checkpoint import model_tensors
from hpcft.train.model import LossModel
from hpcft.train.snapshot import whole

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def shard(model: LossModel, accelerator: Accelerator, train: Train) -> Callable[..., Tensor]:
    """The model's forward in mixed precision, after each process has kept its share of the model alone.

    zero2 keeps a layer whole from its forward to its backward pass, full gathers it for each. Embeddings and head are
    one unit, whole in between, since the head may be the embedding. On a GPU layers are gathered in the precision that
    they are multiplied in, in place of autocast's copies; their norms' weights are rounded to it too.
    """
    device = accelerator.device.type
    if not dist.is_initialized():  # one process that offloads
        backend = "cuda:nccl,cpu:gloo" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    offload = CPUOffloadPolicy() if train.offload else OffloadPolicy()
    half = HALF.get(train.precision) if device == "cuda" else None
    # Inputs stay as they are: what is added up over the layers is in fp32 with autocast too.
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in layer_list(model.inner):
        again = train.sharding == "full"
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=offload)
    for name in ("logits", "generate", "probabilities", "both_orders", "loss_and_answers"):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)

    def forward(**inputs: Any) -> Tensor:
        with accelerator.autocast():
            loss: Tensor = model(**inputs)
        return loss

    return forward


def gather(model: LossModel, rank: int) -> dict[str, Tensor]:
    """The weights by name, each once, whole and on the CPU; {} but on rank 0. Every process must call it."""
    gathered = {}
    for name, tensor in model_tensors(model).items():
        full = whole(tensor)
        if rank == 0:
            gathered[name] = full.cpu()
    return gathered


def share_of(tensor: Tensor, held: Any) -> Tensor:
    """Of a whole tensor the share that this process holds of another of its shape (a DTensor), on the same device."""
    mesh = held.device_mesh
    chunks = tensor.chunk(mesh.size())
    rank = mesh.get_local_rank()
    mine = chunks[rank] if rank < len(chunks) else tensor[:0]
    made: Tensor = DTensor.from_local(
        mine.to(held.to_local().device),
        mesh,
        held.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )
    return made
