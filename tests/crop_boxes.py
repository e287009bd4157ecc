"""Crop boxes of pairs of views: drawn as in training, and the degenerate ones among them."""

import random

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from hvc.pretrain.data.views import crop_box, draw_crop

KINDS = (
    "crops",
    "identical",
    "disjoint",
    "mirrored",
    "no width",
    "no height",
    "points",
    "same point",
    "tiny",
)
"""Of a pair of boxes, see `pair_of_boxes`."""


def official_boxes(
    samples: int, seed: int = 0, size: tuple[int, int] = (640, 480)
) -> tuple[Tensor, Tensor]:
    """float32 [B, 4] of each view, drawn as the official code draws them on images of one size."""
    rng = random.Random(seed)
    first, second = (
        torch.from_numpy(np.stack([crop_box(draw_crop(*size, rng), *size) for _ in range(samples)]))
        for _ in range(2)
    )
    return first, second


def pair_of_boxes(kind: str, rng: np.random.Generator) -> np.ndarray:
    """[2, 4], boxes of the two views."""
    corner, extent = rng.random((2, 2)) * 0.6, 0.05 + rng.random((2, 2)) * 0.35
    boxes = np.concatenate([corner, corner + extent], axis=1)
    match kind:
        case "identical":
            boxes[1] = boxes[0]
        case "disjoint":
            boxes = boxes * 0.3
            boxes[1] += 0.6
        case "mirrored":
            boxes[1, [0, 2]] = boxes[1, [2, 0]]
        case "no width":
            boxes[0, 2] = boxes[0, 0]
        case "no height":
            boxes[:, 3] = boxes[:, 1]
        case "points":
            boxes[:, 2:] = boxes[:, :2]
        case "same point":
            boxes[:] = 0.5
        case "tiny":
            boxes[1] = np.concatenate([boxes[0, :2], boxes[0, :2] + 1e-3])
    return boxes


@st.composite
def batches_of_boxes(draw: st.DrawFn, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """[B, 4] of each view, float32 or float64, one to five samples of any kind."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    boxes = np.stack([pair_of_boxes(kind, rng) for kind in kinds], axis=1)
    chosen = dtype or draw(st.sampled_from([torch.float32, torch.float64]))
    first, second = torch.from_numpy(boxes).to(chosen)
    return first, second
