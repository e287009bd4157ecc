"""Which positions of two views show the same point of the image (paper, correspondence by coordinates).

Only about 47 of the 1,048,576 pairs of two 32 x 32 maps are positive, and which ones follows from the crop
boxes alone. So they are listed on the host, where the boxes are: the device never has to count them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RADIUS = 0.1
"""Positive radius of the official code, in diagonals of the larger bin."""

_CHUNK = 1 << 18
"""Candidates that are looked at in one go: some 20 MB, whatever the radius."""

Floats = NDArray[Any]
Ints = NDArray[np.int64]
Near = tuple[Ints, ...]
"""Sample, row (or column) in view 1, row (or column) in view 2: of n pairs, in this order."""


@dataclass(frozen=True)
class Pairs:
    """The positive pairs of a batch of B samples, in the order of (sample, query, key)."""

    index: Tensor
    """int64 [3, P]: sample, position in view 1's map, position in view 2's map (row-major)."""
    counts: Tensor
    """float32 [B]: pairs of each sample."""
    size: tuple[int, int]
    """Height and width of the maps."""

    def to(self, device: torch.device) -> Self:
        """The same on a device; a GPU's copy overlaps with what the host does next."""
        index, counts = self.index, self.counts
        if device.type == "cuda" and index.device.type == "cpu":
            index, counts = index.pin_memory(), counts.pin_memory()
        index, counts = (tensor.to(device, non_blocking=True) for tensor in (index, counts))
        return replace(self, index=index, counts=counts)

    def swapped(self) -> Self:
        """The same pairs from view 2 to view 1, left in the order from view 1 to view 2."""
        sample, first, second = self.index
        return replace(self, index=torch.stack([sample, second, first]))


def find_pairs(boxes: tuple[Tensor, Tensor], height: int, width: int, radius: float = RADIUS) -> Pairs:
    """The pairs of positions whose centres lie strictly less than `radius` apart in the image.

    Distances are in diagonals of the larger of the two bins (1/height by 1/width of a crop). Two crops of
    zero size have none (0 / 0). All is computed in the precision of the boxes, operation by operation as
    over all pairs, so that exactly the same ones are found. Some 2 ms for 128 samples of 32 x 32; memory
    is that of what is found.

    Args:
        boxes: crop boxes of view 1 and view 2, each [B, 4] (x0, y0, x1, y1) in [0, 1], float32 or
            float64, on the host; x0 > x1 where a view is mirrored.
        height, width: the feature map's size.
        radius: above 0; the official code has 0.1.
    """
    grids = [_Grid(box, height, width) for box in boxes]
    diagonal = torch.maximum(grids[0].diagonal, grids[1].diagonal).numpy()[:, None, None]
    limit = diagonal.dtype.type(radius)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rows = _squares(grids[0].y, grids[1].y)  # [B, height, height]
        columns = _squares(grids[0].x, grids[1].x)  # [B, width, width]
        # A pair is as far apart as its rows and its columns at least; the margin is for roots not rounded
        # to the nearest, as torch has them where it asks MKL.
        wider = limit * limit.dtype.type(1 + 64 * np.finfo(limit.dtype).eps)
        near_rows = np.nonzero(np.sqrt(rows) / diagonal < wider)
        near_columns = np.nonzero(np.sqrt(columns) / diagonal < wider)
        found = []
        for row, column in _combine(near_rows, near_columns, len(diagonal)):
            sample, row_q, row_k = (part[row] for part in near_rows)
            _, column_q, column_k = (part[column] for part in near_columns)
            squares = rows[sample, row_q, row_k] + columns[sample, column_q, column_k]
            apart = torch.from_numpy(squares).sqrt().numpy() / diagonal[sample, 0, 0]
            query, key = row_q * width + column_q, row_k * width + column_k
            flat = (sample * (height * width) + query) * (height * width) + key
            found.append(np.sort(flat[apart < limit]))
    flat = np.concatenate([np.empty(0, np.int64), *found])
    index, counts = _unravel(flat, len(diagonal), height * width)
    return Pairs(torch.from_numpy(index), torch.from_numpy(counts), (height, width))


class _Grid:
    """Centres of a map's bins, x [B, width] and y [B, height], and the bins' diagonals [B]."""

    def __init__(self, boxes: Tensor, height: int, width: int) -> None:
        x0, y0, x1, y1 = boxes.unbind(-1)
        bin_width, bin_height = (x1 - x0) / width, (y1 - y0) / height
        columns = torch.arange(width, dtype=boxes.dtype) + 0.5
        rows = torch.arange(height, dtype=boxes.dtype) + 0.5
        self.x = (x0[:, None] + columns * bin_width[:, None]).numpy()
        self.y = (y0[:, None] + rows * bin_height[:, None]).numpy()
        self.diagonal = torch.hypot(bin_width, bin_height)


def _squares(first: Floats, second: Floats) -> Floats:
    """Squared differences of [B, n] and [B, n] along one axis, [B, n, n]."""
    apart = first[:, :, None] - second[:, None]
    return apart * apart


def _combine(rows: Near, columns: Near, samples: int) -> Iterator[tuple[Ints, Ints]]:
    """Every near pair of rows with every near pair of columns of its sample, some at a time.

    Gives numbers into `rows` and into `columns`. What belongs to one row of a sample's view 1 comes
    together, so that sorting the pieces sorts the whole.
    """
    sample, row_q, _ = rows
    per_sample = np.bincount(columns[0], minlength=samples)
    first = np.cumsum(per_sample) - per_sample  # of each sample, in `columns`
    each = per_sample[sample]  # candidates of every near pair of rows
    upto = np.concatenate([[0], np.cumsum(each)])
    last_of_row = (np.diff(sample, append=samples) != 0) | (np.diff(row_q, append=-1) != 0)
    cuts = np.flatnonzero(last_of_row) + 1  # where a piece may end
    start = 0
    while start < len(sample):
        fits = np.searchsorted(upto[cuts], upto[start] + _CHUNK, side="right")
        end = max(int(cuts[max(fits - 1, 0)]), int(cuts[np.searchsorted(cuts, start, side="right")]))
        row = np.repeat(np.arange(start, end), each[start:end])
        column = np.arange(upto[start], upto[end]) - upto[row] + first[sample[row]]
        yield row, column
        start = end


def _unravel(flat: Ints, samples: int, positions: int) -> tuple[Ints, Floats]:
    index = np.empty((3, len(flat)), np.int64)
    rest, index[2] = np.divmod(flat, positions)
    index[0], index[1] = np.divmod(rest, positions)
    return index, np.bincount(index[0], minlength=samples).astype(np.float32)
