"""One label-propagation call: a frame's masks from the masks of frames before it.

Every position of the query frame is compared (dot product of features) with all positions of the
reference frame and with the positions of the context frames inside a disc. The top k of all these
together vote with their soft masks, weighted by a softmax of affinity / temperature.

The discs allow about 7 % of all pairs at 480p, so queries are processed in square tiles, each
against the block of keys that holds its discs; no matrix over all pairs ever exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from hvc.evaluation.context import Tile, grid, plan_tiles, tile_side, within_radius

SCORES_PER_TILE = 1 << 25
"""Most affinities held at a time (128 MiB in float32)."""


@dataclass(frozen=True)
class Frame:
    """What a frame is remembered by: features [h, w, C] and soft masks [h, w, M]."""

    features: Tensor
    masks: Tensor


@dataclass(frozen=True)
class _Candidates:
    affinity: Tensor  # [Q, k]
    masks: Tensor  # [Q, k, M]


def propagate_masks(
    query: Tensor,
    reference: Frame,
    context: Sequence[tuple[Frame, int]],
    *,
    radius: float,
    top_k: int,
    temperature: float,
) -> Tensor:
    """Predict soft masks [h, w, M] for the features [h, w, C] of a frame.

    Args:
        query: features of the frame to label, normalised to length 1 over C.
        reference: compared without restriction.
        context: frames with the number of times each one counts (see `context_counts`).
        radius: context positions count when nearer than this, in feature-map cells.
        top_k: neighbours that vote; fewer when there are fewer positions in all.
        temperature: divides the affinities before the softmax.
    """
    height, width, channels = query.shape
    by_copies = [
        (copies, [frame for frame, _ in group])
        for copies, group in groupby(sorted(context, key=_copies), key=_copies)
    ]
    side = tile_side(height, width, radius, len(context), SCORES_PER_TILE)
    scratch = _Scratch(query)
    result = torch.empty_like(reference.masks)
    for tile in plan_tiles(height, width, radius, side):
        queries = query[tile.rows, tile.columns].reshape(-1, channels)
        found = [_anywhere(queries, reference, top_k)]
        if by_copies:
            outside = _outside(tile, radius, query)
        for copies, frames in by_copies:
            found.append(_nearby(queries, frames, tile, outside, copies, top_k, scratch))
        block = result[tile.rows, tile.columns]
        block.copy_(_vote(found, top_k, temperature).view_as(block))
    return result


def _copies(item: tuple[Frame, int]) -> int:
    return item[1]


class _Scratch:
    """Memory that all tiles use in turn: fresh pages would cost as much as filling them."""

    def __init__(self, like: Tensor) -> None:
        self._buffers = {"keys": like.new_empty(0), "scores": like.new_empty(0)}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised memory of this shape, valid until the name's next call."""
        size = torch.Size(shape).numel()
        if size > self._buffers[name].numel():
            self._buffers[name] = self._buffers[name].new_empty(size)
        return self._buffers[name][:size].view(shape)


def _anywhere(queries: Tensor, frame: Frame, top_k: int) -> _Candidates:
    """The best of all positions of one frame."""
    keys = frame.features.flatten(0, 1)
    affinity, index = (queries @ keys.T).topk(min(top_k, len(keys)))
    return _Candidates(affinity, frame.masks.flatten(0, 1)[index])


def _nearby(
    queries: Tensor,
    frames: list[Frame],
    tile: Tile,
    outside: Tensor,
    copies: int,
    top_k: int,
    scratch: _Scratch,
) -> _Candidates:
    """The best positions inside the discs of frames that all count `copies` times."""
    blocks = [frame.features[tile.key_rows, tile.key_columns] for frame in frames]
    keys = torch.stack(blocks, out=scratch.take("keys", len(frames), *blocks[0].shape)).flatten(0, 2)
    flat = torch.mm(queries, keys.T, out=scratch.take("scores", len(queries), len(keys)))
    flat.view(len(queries), len(frames), -1).add_(outside[:, None, :])
    # Of a set in which everything stands m times, the k best are copies of the ceil(k / m) best.
    affinity, index = flat.topk(min(-(-top_k // copies), flat.shape[1]))
    masks = torch.cat([f.masks[tile.key_rows, tile.key_columns].flatten(0, 1) for f in frames])
    return _Candidates(affinity.repeat(1, copies), masks[index].repeat(1, copies, 1))


def _outside(tile: Tile, radius: float, like: Tensor) -> Tensor:
    """[Q, K]: 0 inside the disc, -inf outside, so that no softmax weight is left there."""
    queries = grid(tile.rows, tile.columns, like.device)
    keys = grid(tile.key_rows, tile.key_columns, like.device)
    allowed = within_radius(queries, keys, radius)
    return like.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)


def _vote(found: list[_Candidates], top_k: int, temperature: float) -> Tensor:
    """Joint top k over all candidates -> [Q, M]."""
    affinity = torch.cat([part.affinity for part in found], dim=1)
    masks = torch.cat([part.masks for part in found], dim=1)
    best, index = affinity.topk(min(top_k, affinity.shape[1]))
    weights = (best / temperature).softmax(dim=1)
    chosen = masks.take_along_dim(index[:, :, None], dim=1)
    return torch.einsum("qk,qkm->qm", weights, chosen)
