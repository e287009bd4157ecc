"""Labels drawn over a frame: objects and body parts as colours, joints with their limbs."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter, minimum_filter

from hvc.evaluation.layouts.masks import palette

Pixels = NDArray[np.uint8]
Point = tuple[float, float] | None
"""x and y in pixels of the image; None: the joint is not there."""

JOINTS = (
    *("neck", "belly", "face", "right shoulder", "left shoulder", "right hip", "left hip"),
    *("right elbow", "left elbow", "right knee", "left knee", "right wrist", "left wrist"),
    *("right ankle", "left ankle"),
)
"""JHMDB's joints in the order of its files."""
RIGHT, LEFT, MIDDLE = (230, 159, 0), (86, 180, 233), (240, 228, 66)
LIMBS = (
    *((2, 0, MIDDLE), (0, 1, MIDDLE)),
    *((0, 3, RIGHT), (3, 7, RIGHT), (7, 11, RIGHT), (1, 5, RIGHT), (5, 9, RIGHT), (9, 13, RIGHT)),
    *((0, 4, LEFT), (4, 8, LEFT), (8, 12, LEFT), (1, 6, LEFT), (6, 10, LEFT), (10, 14, LEFT)),
)
"""Pairs of joints, and the colour of what lies between them."""
_PART_COLOURS = (
    *((0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85)),
    *((0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255)),
    *((51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0)),
)
"""The palette that human parsing has used since LIP and VIP."""


def overlay(
    image: Pixels, labels: Pixels, alpha: float = 0.5, colours: Pixels | None = None
) -> Image.Image:
    """Colour every object of `labels` over an image and draw its contour in white.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: ids, uint8 [H, W], 0 being the background.
        alpha: how much the colour covers, in [0, 1].
        colours: of every id, uint8 [256, 3]; by default the hues of the DAVIS palette.
    """
    chosen = bright_palette() if colours is None else colours
    drawn = image.astype(np.float32)
    inside = labels != 0
    drawn[inside] = (1 - alpha) * drawn[inside] + alpha * chosen[labels[inside]]
    drawn[_contour(labels)] = 255
    return Image.fromarray(drawn.round().astype(np.uint8))


def skeleton(image: Pixels, joints: Sequence[Point], alpha: float = 0.85) -> Image.Image:
    """Draw limbs and joints over an image: the person's right side orange, the left one blue.

    Args:
        image: uint8 RGB [H, W, 3].
        joints: as many as JOINTS, in its order; a limb without one of its ends is not drawn.
        alpha: how much they cover, in [0, 1].
    """
    plain = Image.fromarray(image)
    drawn = plain.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(min(plain.size) / 60))
    for first, second, colour in LIMBS:
        start, end = joints[first], joints[second]
        if start is not None and end is not None:
            pen.line((*start, *end), (0, 0, 0), width + 2)
            pen.line((*start, *end), colour, width)
    for point in joints:
        if point is not None:
            x, y = point
            pen.ellipse((x - width, y - width, x + width, y + width), (255, 255, 255), (0, 0, 0))
    return Image.blend(plain, drawn, alpha)


@cache
def bright_palette() -> Pixels:
    """The DAVIS palette made brighter, its first colours most: they are too dark to see on dark things."""
    colours = palette()
    below_brightest = (128 - colours.astype(np.int64)) % 256
    return np.where(colours > 0, 255 - 0.6 * below_brightest, 0).astype(np.uint8)


@cache
def part_palette() -> Pixels:
    """The colour of every body part, uint8 [256, 3]; ids that VIP does not know are grey."""
    colours = np.full((256, 3), 128, np.uint8)
    colours[: len(_PART_COLOURS)] = _PART_COLOURS
    return colours


def _contour(labels: Pixels) -> NDArray[np.bool_]:
    """The rim of every object, 1 pixel wide for every 400 of the picture's height."""
    width = 1 + 2 * max(1, round(labels.shape[0] / 400))
    return (labels != 0) & (maximum_filter(labels, width) != minimum_filter(labels, width))
