"""The loss over all pairs of positions, as the paper writes it: the reference of the one over positives."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hvc.pretrain.model.loss import PairTerms

Flow = Callable[[Tensor, Tensor], Tensor]


def bin_centres(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Centres [B, height * width, 2] as (x, y), row-major, and diagonals [B] of a map's bins.

    `boxes` are [B, 4] crop boxes (x0, y0, x1, y1) in the image.
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
def positive_mask(boxes_q: Tensor, boxes_k: Tensor, height: int, width: int, radius: float = 0.1) -> Tensor:
    """[B, hw, hw] bool: True where query and key position are strictly less than `radius` apart."""
    return distances(boxes_q, boxes_k, height, width) < radius


def dense_pair_terms(
    query: Tensor, key: Tensor, positives: Tensor, forward: Tensor, backward: Tensor
) -> PairTerms:
    """`hvc.pretrain.model.loss.pair_terms` with a mask [B, hw, hw] in place of pairs."""
    return PairTerms(
        static=_mean_over_positives(query, key, positives),
        dynamic=_mean_over_positives(F.normalize(forward, dim=1), F.normalize(backward, dim=1), positives),
    )


def _mean_over_positives(a: Tensor, b: Tensor, positives: Tensor) -> Tensor:
    products = a.flatten(2).transpose(1, 2) @ b.flatten(2)  # [B, hw, hw]
    mask = positives.float()  # counted in fp32 at every precision, as the official code does
    return (products * mask).sum((1, 2)) / (mask.sum((1, 2)) + 1e-6)
