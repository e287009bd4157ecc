"""Features as colours: three main directions of variance, turned so that colours stay comparable."""

import torch
from torch import Tensor
from torch.nn import functional as F

_DIRECTIONS = 12  # more than the three asked for: the iteration then needs few rounds
_ROUNDS = 8
_REACH = 2.0
"""Standard deviations from the mean, in one direction, at which a colour is full."""


def feature_colours(features: Tensor, like: Tensor) -> tuple[Tensor, float]:
    """Colours of all positions, and the share of the variance that they show.

    The scores on the three main directions are scaled to variance 1 each and turned as one, by the
    rotation or reflection that brings them nearest to `like` (orthogonal Procrustes): directions have
    neither sign nor order of their own. Turning changes no distance between two colours. Directions
    without variance, as of a collapsed network, stay grey.

    Args:
        features: [n, C, h, w]; a position with a value that is not finite becomes black.
        like: [n, h, w, 3] colours in [0, 1] of the same positions: made by this function from another
            network's features, or the images' own (`pixel_colours`).

    Returns:
        float32 [n, h, w, 3] in [0, 1], on the CPU, and a share in [0, 1].
    """
    count, channels, height, width = features.shape
    rows = features.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).reshape(-1, channels)
    finite = torch.isfinite(rows).all(1)
    scores, share = _scores(rows[finite])
    scores = scores @ _turn(scores, like.reshape(-1, 3)[finite] - 0.5)
    colours = torch.zeros(len(rows), 3)
    colours[finite] = (0.5 + 0.5 * scores / _REACH).clamp(0, 1)
    return colours.view(count, height, width, 3), share


def pixel_colours(images: Tensor, height: int, width: int) -> Tensor:
    """Mean colour of an image below each position: uint8 [n, S, S, 3] -> float [n, h, w, 3] in [0, 1]."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    return F.adaptive_avg_pool2d(pixels, (height, width)).permute(0, 2, 3, 1)


def _scores(rows: Tensor) -> tuple[Tensor, float]:
    """Scores on three main directions [N, 3], variance 1 each (0 where there is none), and their share."""
    empty = torch.zeros(len(rows), 3), 0.0
    if not rows.numel():
        return empty
    centred = rows - rows.mean(0)
    total = float(centred.square().sum())
    if total <= 1e-9 * float(rows.square().sum()) or total == 0:  # nothing but rounding
        return empty
    scores, values, _ = torch.linalg.svd(centred @ _main_subspace(centred), full_matrices=False)
    scores, values = F.pad(scores, (0, 3))[:, :3], F.pad(values, (0, 3))[:3]
    scaled = scores * len(rows) ** 0.5 * (values > 1e-3 * values[0])
    return scaled, min(float(values.square().sum()) / total, 1.0)


def _main_subspace(centred: Tensor) -> Tensor:
    """Orthonormal columns [C, <= 12] that span the main directions of [N, C], by subspace iteration.

    A whole decomposition of 2048 channels takes seconds. The start is fixed, and no generator of the
    process is touched: training draws from those.
    """
    channels = centred.shape[1]
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(channels, min(_DIRECTIONS, channels), generator=generator)
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(centred.T @ (centred @ torch.linalg.qr(basis).Q)).Q
    return basis


def _turn(scores: Tensor, like: Tensor) -> Tensor:
    """The orthogonal [3, 3] matrix that brings scores [N, 3] nearest to others."""
    left, _, right = torch.linalg.svd(scores.double().T @ like.double())
    return (left @ right).float()
