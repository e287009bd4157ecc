"""Which positions of two views show the same point of the image (paper, correspondence by coordinates)."""

import torch
from torch import Tensor

RADIUS = 0.1
"""Positive radius of the official code, in diagonals of the larger bin."""


def bin_centres(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Centres and diagonals of the bins that a feature map's positions cover.

    Args:
        boxes: [B, 4] crop boxes (x0, y0, x1, y1) in the image, in [0, 1].
        height, width: the feature map's size.

    Returns:
        centres [B, height * width, 2] as (x, y), row-major, and diagonals [B].
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    bin_width, bin_height = (x1 - x0) / width, (y1 - y0) / height
    columns = torch.arange(width, dtype=boxes.dtype, device=boxes.device) + 0.5
    rows = torch.arange(height, dtype=boxes.dtype, device=boxes.device) + 0.5
    x = x0[:, None] + columns * bin_width[:, None]  # [B, width]
    y = y0[:, None] + rows * bin_height[:, None]  # [B, height]
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return grid.flatten(1, 2), torch.hypot(bin_width, bin_height)


def distances(boxes_q: Tensor, boxes_k: Tensor, height: int, width: int) -> Tensor:
    """Distance of every query bin to every key bin in diagonals of the larger one, [B, hw, hw].

    Two crops of zero size give NaN, which is nowhere below a radius.
    """
    centres_q, diagonal_q = bin_centres(boxes_q, height, width)
    centres_k, diagonal_k = bin_centres(boxes_k, height, width)
    apart = (centres_q[:, :, None] - centres_k[:, None]).square().sum(-1).sqrt()
    return apart / torch.maximum(diagonal_q, diagonal_k)[:, None, None]


@torch.no_grad()
def positive_mask(
    boxes_q: Tensor, boxes_k: Tensor, height: int, width: int, radius: float = RADIUS
) -> Tensor:
    """[B, hw, hw] bool: True where query and key position are strictly less than `radius` apart."""
    return distances(boxes_q, boxes_k, height, width) < radius
