"""Label propagation by matrix products: for GPUs, in any precision that torch multiplies in.

Queries are taken in equal square tiles, each against the block of keys that holds its discs, several
tiles in one product. Nothing waits for the device: all shapes are known beforehand.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hvc.evaluation.propagation.context import grid, half_widths, plan_tiles, within_radius
from hvc.evaluation.propagation.memory import Frame, Memory
from hvc.evaluation.propagation.protocol import Protocol

SIDE = 16
"""Of a tile: small enough that its block holds little but discs, large enough for fast products."""
BUDGET = 1 << 31
"""Most bytes of keys and affinities together that are held at a time."""


class _Plan(NamedTuple):
    """Tiles of one grid: T tiles of Q queries and K keys, as flat positions."""

    queries: Tensor  # [T, Q]
    keys: Tensor  # [T, K]
    outside: Tensor
    """[T, Q, K]: 0 inside the disc, -inf outside, so that no softmax weight is left there."""


class _Candidates(NamedTuple):
    affinity: Tensor  # [T, Q, k]
    masks: Tensor  # [T, Q, k, M]
    times: int
    """How often it counts in a mean over frames."""


def propagate_tiles(
    query: Tensor,
    references: Sequence[Frame],
    memory: Memory,
    counts: Sequence[Mapping[int, int]],
    protocol: Protocol,
) -> Tensor:
    """`propagation.propagate_masks` on the device and in the dtype of the features."""
    height, width, _ = query.shape
    plan = _plan(height, width, protocol.radius, query.device, query.dtype)
    masks = torch.stack([frame.masks for frame in references])
    for r, (reference, slots) in enumerate(zip(references, counts, strict=True)):
        flat = masks[r].flatten(0, 1)
        for part in _parts(plan, query, len(slots)):
            found = list(_found(query, reference, memory, slots, part, protocol))
            flat[part.queries.flatten()] = _vote(found, protocol).flatten(0, 1)
    return masks


@lru_cache(maxsize=4)
def _plan(height: int, width: int, radius: float | None, device: torch.device, dtype: torch.dtype) -> _Plan:
    tiles = plan_tiles(height, width, half_widths(radius, height, width), SIDE)
    queries = [grid(tile.rows, tile.columns, device) for tile in tiles]
    keys = [grid(tile.key_rows, tile.key_columns, device) for tile in tiles]
    if radius is None:
        outside = torch.zeros(len(tiles), 1, 1, dtype=dtype, device=device)
    else:
        near = [within_radius(q, k, radius) for q, k in zip(queries, keys, strict=True)]
        outside = torch.zeros((), dtype=dtype, device=device).where(torch.stack(near), -torch.inf)
    flat = [torch.stack([p[:, 0] * width + p[:, 1] for p in places]) for places in (queries, keys)]
    return _Plan(flat[0], flat[1], outside)


def _parts(plan: _Plan, query: Tensor, frames: int) -> Iterator[_Plan]:
    """Cut a plan so that keys and affinities of each part keep to the budget."""
    keys = frames * plan.keys.shape[1] + query.shape[0] * query.shape[1]
    each = keys * (query.shape[2] + plan.queries.shape[1]) * query.element_size()
    tiles = len(plan.queries)
    parts = -(-tiles // max(BUDGET // each, 1))
    step = -(-tiles // parts)
    for start in range(0, tiles, step):
        yield _Plan(*(tensor[start : start + step] for tensor in plan))


def _found(
    query: Tensor,
    reference: Frame,
    memory: Memory,
    slots: Mapping[int, int],
    part: _Plan,
    protocol: Protocol,
) -> Iterator[_Candidates]:
    """The best of the reference, then of the context: frames that count equally often in one product."""
    queries = query.flatten(0, 1)[part.queries]
    alone = Memory(reference.features[None], reference.masks[None])
    if protocol.reference_window:
        yield from _nearby(queries, alone, [0], 1, part, protocol)
    else:
        keys = reference.features.flatten(0, 1)
        affinity, index = (queries @ keys.T).topk(min(protocol.top_k, len(keys)))
        yield _Candidates(affinity, reference.masks.flatten(0, 1)[index], 1)
    by_copies: dict[int, list[int]] = {}
    for slot, copies in slots.items():
        by_copies.setdefault(copies, []).append(slot)
    for copies, same in by_copies.items():
        yield from _nearby(queries, memory, same, copies, part, protocol)


def _nearby(
    queries: Tensor, memory: Memory, slots: list[int], copies: int, part: _Plan, protocol: Protocol
) -> Iterator[_Candidates]:
    """The best positions inside the discs, jointly over frames that count equally often, or of each."""
    tiles, cells = len(part.keys), memory.features[0, ..., 0].numel()
    offsets = torch.tensor(slots).to(part.keys, non_blocking=True) * cells
    where = (part.keys[:, None, :] + offsets[:, None]).flatten(1)  # [T, N * K]
    keys = memory.features.flatten(0, 2)[where]
    affinity = torch.bmm(queries, keys.transpose(1, 2)).view(tiles, -1, len(slots), part.keys.shape[1])
    affinity += part.outside[:, :, None]
    masks = memory.masks.flatten(0, 2)
    if protocol.top_k_per_frame:
        best, index = affinity.topk(min(protocol.top_k, affinity.shape[3]))
        at = where.view(tiles, 1, len(slots), -1).expand(-1, index.shape[1], -1, -1).gather(3, index)
        for frame in range(len(slots)):
            yield _Candidates(best[:, :, frame], masks[at[:, :, frame]], copies)
        return
    # Of a set in which everything stands m times, the k best are copies of the ceil(k / m) best.
    wanted = min(-(-protocol.top_k // copies), where.shape[1])
    best, index = affinity.flatten(2).topk(wanted)
    at = where[:, None].expand(-1, index.shape[1], -1).gather(2, index)
    yield _Candidates(best.repeat(1, 1, copies), masks[at].repeat(1, 1, copies, 1), copies)


def _vote(found: list[_Candidates], protocol: Protocol) -> Tensor:
    """Joint top k over all candidates, or the mean of the frames' votes -> [T, Q, M]."""
    if protocol.top_k_per_frame:
        votes = [part.times * _weighted(part.affinity, part.masks, protocol) for part in found]
        return torch.stack(votes).sum(0) / sum(part.times for part in found)
    affinity = torch.cat([part.affinity for part in found], 2)
    best, index = affinity.topk(min(protocol.top_k, affinity.shape[2]))
    masks = torch.cat([part.masks for part in found], 2)
    return _weighted(best, masks.take_along_dim(index[..., None], dim=2), protocol)


def _weighted(affinity: Tensor, masks: Tensor, protocol: Protocol) -> Tensor:
    weights = (affinity.to(masks.dtype) / protocol.temperature).softmax(2)
    return (weights[..., None] * masks).sum(2)
