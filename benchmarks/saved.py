"""What a training step keeps for its backward pass, counted without a device and without computing.

PyTorch's fake tensors have shapes, types and storages, but no values. Every storage that autograd saves
is counted once, weights left out; of two batch sizes the difference is what an image costs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from form import Figure
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.model.pairs import Pairs
from hvc.pretrain.model.recompute import recompute_blocks, recompute_cheap

_PAIRS_PER_SAMPLE = 50


class Saved(NamedTuple):
    """Bytes kept between forward and backward."""

    per_image: float
    fixed: float
    """Whatever the batch: half-precision copies of weights."""
    holders: dict[str, float]
    """Bytes per image by module, the largest first."""


class Memory(NamedTuple):
    """An estimate for a whole step, in GB (10^9 bytes)."""

    saved: float
    state: float
    """Weights, gradients, Adam's state, target."""
    transient: float
    """What one layer's backward pass needs for itself: three of its largest map."""

    @property
    def total(self) -> float:
        """All of it; cuDNN's workspace and the allocator's rounding come on top."""
        return self.saved + self.state + self.transient


def saved_by(size: int, *, half: bool = True, recompute: bool = False) -> Saved:
    """Of a step on views of `size` pixels, under bf16 autocast or in fp32."""
    one, two = (_count(batch, size, half, recompute) for batch in (1, 2))
    holders = {name: two[name] - one[name] for name in two}
    per_image = sum(holders.values())
    ordered = sorted(holders.items(), key=lambda item: -item[1])
    return Saved(per_image, sum(one.values()) - per_image, dict(ordered))


def memory(size: int, batch: int, *, half: bool = True, recompute: bool = False) -> Memory:
    """The estimate at a batch size."""
    saved = saved_by(size, half=half, recompute=recompute)
    with torch.device("meta"):
        online = OnlineNetwork()
        target = TargetNetwork(online)
    trained, followed = (sum(p.numel() for p in net.parameters()) for net in (online, target))
    largest = batch * 64 * (size // 2) ** 2 * (2 if half else 4)  # the map after the first convolution
    state = 4 * (4 * trained + followed)
    return Memory((saved.per_image * batch + saved.fixed) / 1e9, state / 1e9, 3 * largest / 1e9)


def _count(batch: int, size: int, half: bool, recompute: bool) -> dict[str, float]:
    with FakeTensorMode():
        online = OnlineNetwork(precision=partial(torch.autocast, "cpu", torch.bfloat16, enabled=half))
        if recompute:
            recompute_blocks(online)
        else:
            recompute_cheap(online)  # as on GPUs
        online.train()
        views = [torch.empty(batch, 3, size, size).to(memory_format=torch.channels_last) for _ in range(2)]
        side = size // 8
        keys = [torch.empty(batch, 256, side, side) for _ in views]
        index = torch.zeros(3, _PAIRS_PER_SAMPLE * batch, dtype=torch.int64)
        pairs = Pairs(index, torch.ones(batch), (side, side))
        weights = {p.untyped_storage()._cdata for p in online.parameters()}
        seen: dict[int, Tensor] = {}
        found: dict[str, float] = defaultdict(float)
        with (
            _places(online) as place,
            torch.autograd.graph.saved_tensors_hooks(
                partial(_pack, weights, seen, found, place), lambda value: value
            ),
        ):
            loss = online(views, pairs, keys).total
        del loss
    return dict(found)


def _pack(
    weights: set[int], seen: dict[int, Tensor], found: dict[str, float], place: Callable[[], str], x: Tensor
) -> Tensor:
    storage = x.untyped_storage()
    if storage._cdata not in weights and storage._cdata not in seen:
        seen[storage._cdata] = x  # held, so that no other storage takes its address
        found[place()] += storage.nbytes()
    return x


@contextmanager
def _places(network: nn.Module) -> Iterator[Callable[[], str]]:
    """Tells which part of the network runs now."""
    stack, handles = ["loss"], []

    def enter(name: str, *_: Any) -> None:
        stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    for name, module in network.named_modules():
        if name and name.count(".") <= 1 and not name.endswith(".block"):
            handles.append(module.register_forward_pre_hook(partial(enter, name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield lambda: stack[-1]
    finally:
        for handle in handles:
            handle.remove()


def table(saved: Saved, most: int = 8) -> str:
    """The largest holders, for people."""
    rows = list(saved.holders.items())[:most]
    return "\n".join(f"  {name:32} {size / 1e6:8.2f} MB per image" for name, size in rows)


def figures(size: int, batch: int) -> list[Figure]:
    """What a GPU will need in bf16, kept and recomputed; prints by whom."""
    made = []
    for name, recompute in (
        ("memory.saved_gb_estimate", False),
        ("memory.saved_gb_estimate_recompute", True),
    ):
        need = memory(size, batch, recompute=recompute)
        note = f"bf16, batch {batch}, {size} px; weights and optimiser {need.state:.2f} GB beside it"
        made.append(Figure(name, need.saved, "GB", note=note))
        print(f"{name}: {need.saved:.2f} GB; a layer at work takes {need.transient:.2f} GB at most")
        print(table(saved_by(size, recompute=recompute)))
    return made
