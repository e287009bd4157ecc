"""Which earlier frames and which of their positions a frame may copy labels from. Pure plans.

For a reference frame r, frame t looks at r itself without restriction, and at the `size` frames
before it, clamped to r, each only within a disc around the query position (the official code's
rule). Early in a sequence the clamping repeats r many times, which is part of the method: the
copies take up places among the nearest neighbours.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def context_frames(reference: int, t: int, size: int) -> list[int]:
    """The 1 + `size` frame indices for frame t: the unrestricted reference, then oldest to newest.

    `reference` < t; indices before the reference become the reference.
    """
    return [reference, *(max(frame, reference) for frame in range(t - size, t))]


def context_counts(reference: int, t: int, size: int) -> dict[int, int]:
    """How often each frame stands in the restricted part of `context_frames` (frame -> times)."""
    return dict(Counter(context_frames(reference, t, size)[1:]))


def within_radius(queries: Tensor, keys: Tensor, radius: float) -> Tensor:
    """[Q, 2] and [K, 2] grid positions (row, column) -> bool [Q, K]: distance strictly below radius."""
    exact = "donot_use_mm_for_euclid_dist"  # the quicker mode rounds, and distances may equal the radius
    return torch.cdist(queries.double(), keys.double(), compute_mode=exact) < radius


@dataclass(frozen=True)
class Tile:
    """A block of query positions and the block of key positions that holds all their discs."""

    rows: slice
    columns: slice
    key_rows: slice
    key_columns: slice


def plan_tiles(height: int, width: int, radius: float, side: int) -> Iterator[Tile]:
    """Cut a height x width grid into blocks of at most side x side queries, row by row."""
    reach = max(math.ceil(radius) - 1, 0)  # the largest whole distance that is still below the radius
    for row in range(0, height, side):
        for column in range(0, width, side):
            below, right = min(row + side, height), min(column + side, width)
            yield Tile(
                slice(row, below),
                slice(column, right),
                slice(max(row - reach, 0), min(below + reach, height)),
                slice(max(column - reach, 0), min(right + reach, width)),
            )


def tile_side(height: int, width: int, radius: float, frames: int, budget: int) -> int:
    """The largest power of two (at most 16) whose affinities per tile number no more than `budget`.

    16 keeps the discs' bounding blocks small and the matrix products large; when a radius or a
    picture is so large that even one query exceeds the budget, the answer is 1.
    """
    reach = max(math.ceil(radius) - 1, 0)
    side = 16
    while side > 1 and side**2 * _keys(height, width, side + 2 * reach, frames) > budget:
        side //= 2
    return side


def _keys(height: int, width: int, block: int, frames: int) -> int:
    return height * width + frames * min(height, block) * min(width, block)


def grid(rows: slice, columns: slice, device: torch.device) -> Tensor:
    """The (row, column) positions of a block, row-major: int64 [rows * columns, 2]."""
    return torch.cartesian_prod(
        torch.arange(rows.start, rows.stop, device=device),
        torch.arange(columns.start, columns.stop, device=device),
    )
