"""All tensors of a checkpoint, and where two of them differ."""

import torch

from hvc.pretrain.checkpoints.checkpoint import Checkpoint

Tensors = dict[str, torch.Tensor]


def all_tensors(checkpoint: Checkpoint) -> Tensors:
    """Parameters, optimiser, and every rank's buffers and generators, by name."""
    tensors = checkpoint.tensors("model") | checkpoint.tensors("optimizer")
    for rank, buffers in enumerate(checkpoint.rank_buffers):
        tensors |= {f"rank-{rank}/{key}": value for key, value in buffers.items()}
    return tensors


def differing(a: Tensors, b: Tensors) -> list[str]:
    """Names of the tensors that are not the same to the last bit."""
    assert a.keys() == b.keys()
    return [key for key in a if not torch.equal(a[key], b[key])]
