"""Activations computed again in the backward pass instead of being kept.

Exact: the second pass normalises with the batch's statistics as the first did, but leaves BatchNorm's
running ones alone, so these advance once per step.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hvc.base.errors import UsageError
from hvc.pretrain.model.heads import DynamicHead, SpaceHead
from hvc.pretrain.model.trunk import BasicBlock, Bottleneck, Trunk


def recompute_blocks(network: nn.Module) -> None:
    """From now on keep only the inputs of the network's residual blocks, stems and heads.

    UsageError if it has no residual block.
    """
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock | Bottleneck)]
    if not blocks:
        raise UsageError("engine.recompute works on residual blocks, and this trunk has none; leave it out")
    heads = [module for module in network.modules() if isinstance(module, SpaceHead | DynamicHead)]
    for module in (*blocks, *heads):
        module.forward = partial(_run, module, module.forward)  # type: ignore[method-assign]
    for trunk in network.modules():
        if isinstance(trunk, Trunk):
            trunk.stem = partial(_run, trunk.bn1, trunk.stem)  # type: ignore[method-assign]


def recompute_cheap(network: nn.Module) -> None:
    """From now on keep little of what is large and computed soon: ends of ResNets' stems, dynamic heads.

    Exact, as everything here. In bf16 a fifth of the memory for a per cent of the work.
    """
    for module in network.modules():
        if isinstance(module, Trunk):
            module.after_conv1 = partial(_run, module.bn1, module.after_conv1)  # type: ignore[method-assign]
        elif isinstance(module, DynamicHead):
            module.forward = partial(_run, module, module.forward)  # type: ignore[method-assign]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _run(norms_of: nn.Module, forward: Any, *inputs: Tensor) -> Tensor:
    # A compiler would move the norms' statistics twice. Nothing in here draws random numbers.
    contexts = partial(_contexts, norms_of)
    result: Tensor = checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
    )
    return result


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    # Copies take the second pass's updates; without any, BatchNorm would keep other tensors than before.
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    own = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update(
            {name: value.clone() for name, value in norm._buffers.items() if value is not None}
        )
    try:
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            norm._buffers.update(buffers)
