"""J and F in the textbook form: whole boundary maps, dilated by a disc."""

import numpy as np
from scipy.ndimage import binary_dilation

from hvc.evaluation.metrics.davis_measures import boundary_radius, measure_frame


def boundary_map(mask):
    """Bool [H, W]: pixels that differ from their neighbour to the east, south or south-east."""
    boundary = np.zeros_like(mask)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def disc(radius):
    """Bool [2r+1, 2r+1]."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def dense_measures(truth, predicted):
    """J and F of two bool masks."""
    union = (truth | predicted).sum()
    region = (truth & predicted).sum() / union if union else 1.0
    around = disc(boundary_radius(*truth.shape))
    truth, predicted = boundary_map(truth), boundary_map(predicted)
    if not truth.any() or not predicted.any():
        return region, float(truth.any() == predicted.any())
    precision = (predicted & binary_dilation(truth, around)).sum() / predicted.sum()
    recall = (truth & binary_dilation(predicted, around)).sum() / truth.sum()
    total = precision + recall
    return region, 2 * precision * recall / total if total else 0.0


def measure_masks(truth, predicted):
    """J and F of two bool masks by the product."""
    values, _ = measure_frame(truth.astype(np.uint8), predicted.astype(np.uint8), np.array([1], np.uint8))
    return tuple(values[0].tolist())


def measure_video(truth, predicted, objects):
    """[objects, T - 2] of J and of F: every frame but the first and the last."""
    ids = np.array(objects, np.uint8)
    values = [measure_frame(*pair, ids)[0] for pair in zip(truth[1:-1], predicted[1:-1], strict=True)]
    return np.stack(values).transpose(2, 1, 0)
