"""Two views per sample, cut out of packed images on any device, equal to Pillow's.

The loader only decodes (`packed.py`), the device resizes:

    slots = Slots()                               once in a loader process
    pack(images, draws, slots) -> Packed          there; draws come from `views.draw_views`
    merge(parts, pin=...) -> Packed               in the training process: several loaders' parts as one
    cut_views(packed.to(device), size) -> views   two tensors, each uint8 [B, size, size, 3]

A view equals `views.cut_view` to the last bit, which is Pillow's `crop` and bilinear `resize`: the
triangle filter, widened when shrinking; the width first, rounded to 8 bits, then the height. (Pillow
13 resizes some tall crops the other way round, which moves values by 1.) Each pass is a dense matrix
product with the filter's fixed-point coefficients, split into two halves so small that all sums are
whole numbers below 2**24: float32 holds them exactly, and so does TF32, because no factor has more
than 11 bits. (Only bfloat16, `set_float32_matmul_precision("medium")`, would not.)

All is planned from sizes known on the host; nothing waits for the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hvc.pretrain.data.packed import Packed

LIMIT = 256 * 2**20
"""Bytes that cutting may take for itself, beside packed pixels and finished views."""

_BITS = 22
"""Binary places of Pillow's coefficients."""
_PADDING = 3
"""Views are not padded to more than this many times the pixels of their group's smallest,"""
_SMALL = 64 * 64
"""except to this many: a launch costs more."""


class Group(NamedTuple):
    """Views that are cut together, padded to one size, a band of rows at a time."""

    first: int
    last: int  # one past the last, in order of size
    height: int
    width: int
    rows: int  # of a band


def plan_groups(
    heights: Sequence[int], widths: Sequence[int], size: int, limit: int = LIMIT
) -> list[Group]:
    """Split views into groups that pad little and stay within a number of bytes.

    Args:
        heights, widths: of the crops in pixels, the smallest area first.
        size: side of the views in pixels.
        limit: bytes per group. A single view always makes a group, with bands of one row if need
            be: that takes more only where a crop is some 30,000 pixels wide.
    """
    groups: list[Group] = []
    first, height, width = 0, 0, 0
    for number, (h, w) in enumerate(zip(heights, widths, strict=True)):
        count, new_height, new_width = number - first, max(height, h), max(width, w)
        most = max(_PADDING * heights[first] * widths[first], _SMALL)
        padded = new_height * new_width
        wanted = min(new_height, 64)
        if count and (padded > most or _rows(count + 1, new_width, size, limit) < wanted):
            groups.append(_group(first, number, height, width, size, limit))
            first, new_height, new_width = number, h, w
        height, width = new_height, new_width
    if len(heights) > first:
        groups.append(_group(first, len(heights), height, width, size, limit))
    return groups


def _group(first: int, last: int, height: int, width: int, size: int, limit: int) -> Group:
    rows = max(1, min(height, _rows(last - first, width, size, limit)))
    return Group(first, last, height, width, rows)


def _rows(views: int, width: int, size: int, limit: int) -> int:
    """Rows per band that fit into the limit."""
    # Sums and their integers; weights along rows; taps (int64 and float64, several at a time).
    fixed = 3 * 4 * size * 2 * size * 3 + 4 * size * 2 * (width + 1) + 48 * size * (2 * width // size + 3)
    # A pixel: index, word, three floats. A row: sums, their integers, floats, weights.
    row = (4 + 4 + 12) * width + 4 * size * (2 * 3 + 3 + 3 + 3 + 2)
    usable = limit * 4 // 5  # allocators round up, and products take scratch
    return (usable // views - fixed) // row


def cut_views(packed: Packed, size: int, limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """Both views of every sample, on the device that the pixels are on.

    Args:
        packed: B samples; fewer than 2**30 pixels in all.
        size: side of the views in pixels.
        limit: bytes to work in, beside the packed pixels and twice the views.

    Returns:
        view 1 and view 2, each uint8 [B, size, size, 3].
    """
    places = packed.places.flatten(0, 1)
    order = torch.argsort(places[:, 2] * places[:, 3])
    ordered = places[order]
    plan = torch.cat([ordered, torch.argsort(order)[:, None]], dim=1)
    if packed.pixels.is_cuda:
        plan = plan.pin_memory()
    device_plan = plan.to(packed.pixels.device, non_blocking=True)
    words = packed.pixels.view(torch.int32).flatten()
    views = words.new_empty((len(places), size, size, 3), dtype=torch.uint8)
    with torch.autocast(words.device.type, enabled=False):
        for group in plan_groups(ordered[:, 2].tolist(), ordered[:, 3].tolist(), size, limit):
            views[group.first : group.last] = _cut(
                words, device_plan[group.first : group.last], group, size
            )
    views = views.index_select(0, device_plan[:, 5])
    first, second = views.chunk(2)
    return first, second


def _cut(words: Tensor, places: Tensor, group: Group, size: int) -> Tensor:
    """The views [n, size, size, 3] of one group."""
    start, stride, height, width, flip = places[:, :5].unbind(1)
    across = Filter(width, size, group.width, flip > 0)
    down = Filter(height, size, group.height)
    along_rows = across.dense(0, group.width)
    total: Tensor | None = None
    for row in range(0, group.height, group.rows):
        last = min(row + group.rows, group.height)
        band = _pixels(words, start, stride, row, last, group.width)  # [n, rows, 3, width]
        sums = torch.bmm(band.flatten(1, 2), along_rows.mT).view(*band.shape[:3], 2 * size)
        del band
        rows = across.rounded(sums[..., :size], sums[..., size:])  # [n, rows, 3, size]
        del sums
        sums = torch.bmm(down.dense(row, last), rows.flatten(2).float())  # [n, 2 * size, 3 * size]
        total = sums if total is None else total.add_(sums)
        del rows, sums
    assert total is not None
    columns = down.rounded(total[:, :size, None], total[:, size:, None]).view(-1, size, 3, size)
    return columns.transpose(2, 3)


def _pixels(words: Tensor, start: Tensor, stride: Tensor, row: int, last: int, width: int) -> Tensor:
    """Pixels [n, last - row, 3, width] of crops as float32; beyond a crop's edge anything finite."""
    columns = torch.arange(width, dtype=torch.int32, device=words.device)
    rows = torch.arange(row, last, device=words.device)
    first = (start[:, None] + stride[:, None] * rows).clamp_(max=len(words) - 1).int()
    index = (first[:, :, None] + columns).clamp_(max=len(words) - 1)
    pixels = words.index_select(0, index.flatten()).view(torch.uint8).view(*index.shape, 4)
    del index
    return pixels[..., :3].transpose(2, 3).to(torch.float32, memory_format=torch.contiguous_format)


class Filter:
    """Pillow's coefficients for resizing one axis of n crops, as sparse taps.

    Pillow multiplies by whole numbers q of 2**-22. Here q = high * unit + low, with unit a power of
    two that falls as the filter widens (and its coefficients shrink), so that |high| and |low| stay
    within 2**11, and sums of 255 times either within 2**24.
    """

    def __init__(self, lengths: Tensor, size: int, longest: int, mirrored: Tensor | None = None) -> None:
        """Take int64 lengths [n] of the crops' axis, none above `longest`; bool mirrored [n]."""
        scale = lengths.double() / size
        wide = scale.clamp(min=1)
        place = torch.arange(size, dtype=torch.float64, device=lengths.device).expand(len(lengths), -1)
        if mirrored is not None:
            place = torch.where(mirrored[:, None], size - 1 - place, place)
        centre = (place + 0.5) * scale[:, None]  # [n, size]
        # As Pillow counts: a tap's weight falls with its distance from the centre; they sum to 1.
        self._first = (centre - wide[:, None] + 0.5).floor().clamp(min=0)
        number = torch.arange(taps(longest, size), device=lengths.device)
        position = self._first[..., None] + number  # [n, size, taps]
        weight = 1 - (position - centre[..., None] + 0.5).abs_().div_(wide[:, None, None])
        weight.clamp_(min=0).masked_fill_(position >= lengths[:, None, None], 0)
        weight.div_(weight.sum(-1, keepdim=True))
        whole = weight.mul_(2**_BITS).add_(0.5).floor()
        # log2 may be off by a hair at powers of two; either neighbour keeps the bounds.
        unit = torch.exp2((12 - wide.log2().floor()).clamp(min=6))
        high = whole.div(unit[:, None, None]).add_(0.5).floor_()
        self._low = whole.sub_(high * unit[:, None, None]).float()
        self._high = high.float()
        self._unit = unit.int()[:, None, None, None]
        self._first = self._first.long()

    def dense(self, start: int, stop: int) -> Tensor:
        """float32 [n, 2 * size, stop - start]: all high parts, then all low ones, of these pixels."""
        n, size, count = self._high.shape
        width = stop - start
        number = torch.arange(count, device=self._first.device)
        column = self._first[..., None] + (number - start)
        column.masked_fill_((column < 0) | (column >= width), width)  # one column for what lies outside
        weights = self._high.new_zeros((n, 2, size, width + 1))
        weights[:, 0].scatter_(-1, column, self._high)
        weights[:, 1].scatter_(-1, column, self._low)
        return weights.flatten(1, 2)[..., :width]

    def rounded(self, high: Tensor, low: Tensor) -> Tensor:
        """Weighted sums [n, a, b, c] in 0..255 as uint8, halves rounded up."""
        value = high.int().mul_(self._unit).add_(low.int())
        return value.add_(2 ** (_BITS - 1)).bitwise_right_shift_(_BITS).to(torch.uint8)


def taps(longest: int, size: int) -> int:
    """How many pixels an output pixel can depend on, along an axis of at most this length."""
    return min(longest, 2 * -(-max(longest, size) // size) + 1)
