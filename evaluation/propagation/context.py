"""Which earlier frames and which of their positions a frame may copy labels from. Pure plans.

For a reference frame r, frame t looks at r itself without restriction, and at the `size` frames
before it, clamped to r, each only within a disc around the query position (the official code's
rule). Early in a sequence the clamping repeats r many times, which is part of the method: the
copies take up places among the nearest neighbours.
"""

import math
from collections import Counter
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


def half_widths(radius: float | None, height: int, width: int) -> list[int]:
    """The disc, row by row: for each row distance 0, 1, ... the largest column distance that is inside.

    `radius` None: everything. Distances that no two positions of the grid have are left out.
    """
    if radius is None:
        return [width - 1] * height
    halves = []
    for rows in range(height):
        inside = [columns for columns in range(width) if math.sqrt(rows**2 + columns**2) < radius]
        if not inside:
            break
        halves.append(inside[-1])
    return halves


@dataclass(frozen=True)
class Tile:
    """A block of query positions and a block of key positions that holds all their discs."""

    rows: slice
    columns: slice
    key_rows: slice
    key_columns: slice


def plan_tiles(height: int, width: int, halves: list[int], side: int) -> list[Tile]:
    """Cut a grid into equal blocks of at most side x side queries, with equal blocks of keys, row by row.

    The last blocks are moved inside the grid, so that some queries stand in two of them.

    Args:
        height, width: the grid.
        halves: the disc (`half_widths`).
        side: of a block of queries.
    """
    rows = _spans(height, side, len(halves) - 1)
    columns = _spans(width, side, max(halves))
    return [
        Tile(row, column, key_row, key_column) for row, key_row in rows for column, key_column in columns
    ]


def _spans(size: int, side: int, reach: int) -> list[tuple[slice, slice]]:
    """Along one axis: queries, and the keys up to `reach` beside them."""
    queries, keys = min(side, size), min(side + 2 * reach, size)
    spans = []
    for start in range(0, size, side):
        first = min(start, size - queries)
        around = min(max(first - reach, 0), size - keys)
        spans.append((slice(first, first + queries), slice(around, around + keys)))
    return spans


def grid(rows: slice, columns: slice, device: torch.device) -> Tensor:
    """The (row, column) positions of a block, row-major: int64 [rows * columns, 2]."""
    return torch.cartesian_prod(
        torch.arange(rows.start, rows.stop, device=device),
        torch.arange(columns.start, columns.stop, device=device),
    )
