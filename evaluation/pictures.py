"""Pictures for people: labels drawn over frames, and strips of them to look at side by side."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_filter, minimum_filter

from hvc.evaluation.masks import palette

Pixels = NDArray[np.uint8]

_GAP = 6
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def overlay(image: Pixels, labels: Pixels, alpha: float = 0.5) -> Image.Image:
    """Colour every object of `labels` over an image and draw its contour in white.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: ids, uint8 [H, W], 0 being the background; hues are those of the DAVIS palette.
        alpha: how much the colour covers, in [0, 1].
    """
    drawn = image.astype(np.float32)
    inside = labels != 0
    drawn[inside] = (1 - alpha) * drawn[inside] + alpha * _bright_palette()[labels[inside]]
    drawn[_contour(labels)] = 255
    return Image.fromarray(drawn.round().astype(np.uint8))


def film_strip(
    images: Sequence[Pixels],
    label_maps: Sequence[Pixels],
    titles: Sequence[str],
    truth: Sequence[Pixels] | None = None,
    max_width: int = 2000,
) -> Image.Image:
    """Frames side by side with labels drawn over them, a title above each; ground truth as a second row.

    Args:
        images: n >= 1 frames of one size, uint8 RGB [H, W, 3].
        label_maps: n label maps, uint8 [H, W].
        titles: n short texts.
        truth: n label maps, or None for no second row.
        max_width: pixels; frames are scaled down to fit, never up.
    """
    rows = [("", label_maps)] if truth is None else [("propagated", label_maps), ("ground truth", truth)]
    width = min(images[0].shape[1], (max_width - _GAP * (len(images) + 1)) // len(images))
    height = round(images[0].shape[0] * width / images[0].shape[1])
    text_size = max(12, min(22, width // 14))
    font, line = ImageFont.load_default(text_size), round(1.6 * text_size)
    name_line = line if truth is not None else 0
    band = name_line + height + _GAP
    sheet = Image.new("RGB", (len(images) * (width + _GAP) + _GAP, line + len(rows) * band), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (name, maps) in enumerate(rows):
        top = line + number * band + name_line
        draw.text((_GAP, top - name_line / 2), name, _INK, font, anchor="lm")
        for column, (image, labels) in enumerate(zip(images, maps, strict=True)):
            sheet.paste(_thumbnail(image, labels, (width, height)), (_GAP + column * (width + _GAP), top))
    for column, title in enumerate(titles):
        draw.text((_GAP + (column + 0.5) * (width + _GAP), line / 2), title, _INK, font, anchor="mm")
    return sheet


def _thumbnail(image: Pixels, labels: Pixels, size: tuple[int, int]) -> Image.Image:
    """Scaled first and drawn over afterwards, so that contours stay crisp at any size."""
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    ids = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return overlay(np.asarray(small), np.asarray(ids))


@cache
def _bright_palette() -> Pixels:
    """The DAVIS palette made brighter, its first colours most: they are too dark to see on dark things."""
    colours = palette()
    below_brightest = (128 - colours.astype(np.int64)) % 256
    return np.where(colours > 0, 255 - 0.6 * below_brightest, 0).astype(np.uint8)


def _contour(labels: Pixels) -> NDArray[np.bool_]:
    """The rim of every object, 1 pixel wide for every 400 of the picture's height."""
    width = 1 + 2 * max(1, round(labels.shape[0] / 400))
    return (labels != 0) & (maximum_filter(labels, width) != minimum_filter(labels, width))
