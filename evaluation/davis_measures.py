"""Region similarity J and contour accuracy F of one object in one frame, as the DAVIS tools define them."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]

TOLERANCE = 0.008
"""How far contours may lie apart, as a share of the image diagonal."""


def region_similarity(truth: Mask, predicted: Mask, void: Mask | None = None) -> float:
    """Intersection over union of two bool [H, W] masks, in [0, 1]; 1 when both are empty.

    Pixels in `void` are left out of both.
    """
    truth, predicted = _without(truth, void), _without(predicted, void)
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else 1.0


def contour_accuracy(truth: Mask, predicted: Mask, void: Mask | None = None) -> float:
    """F measure of two bool [H, W] masks' boundaries, in [0, 1]; 1 when neither has a boundary.

    A boundary pixel counts as matched when the other boundary passes within `boundary_radius`.
    """
    radius = boundary_radius(*truth.shape)
    truth_points = np.argwhere(boundary_map(_without(truth, void)))
    predicted_points = np.argwhere(boundary_map(_without(predicted, void)))
    if not len(truth_points) or not len(predicted_points):
        return float(len(truth_points) == len(predicted_points))
    precision = _matched(predicted_points, truth_points, radius)
    recall = _matched(truth_points, predicted_points, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: Mask) -> Mask:
    """Bool [H, W]: pixels that differ from their neighbour to the east, south or south-east.

    The last row looks east only and the last column south only, so that a mask which touches the
    right or lower border has no boundary there.
    """
    boundary = np.zeros_like(mask)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def boundary_radius(height: int, width: int) -> int:
    """Pixels that contours may lie apart in an image of this size (8 at 854 x 480)."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def _matched(points: NDArray[np.int64], others: NDArray[np.int64], radius: int) -> float:
    """Share of points [N, 2] with one of the others [M, 2] within the radius.

    The same as dilating the others by a disc and counting hits, but costs nothing for empty pixels.
    """
    distance, _ = KDTree(others).query(points, distance_upper_bound=radius + 0.5)
    return np.count_nonzero(distance <= radius) / len(points)


def _without(mask: Mask, void: Mask | None) -> Mask:
    return mask if void is None else mask & ~void
