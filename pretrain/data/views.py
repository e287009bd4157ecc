"""Two random views of a sample: what is drawn for them, and how Pillow cuts them.

Both views are independent draws of the same random resized crop; flips and colour are off unless a
recipe asks for them. What is drawn depends only on the generator that is handed in, so views can be
a function of (seed, epoch, sample) and of nothing else.
"""

import hashlib
import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ASPECTS = (3 / 4, 4 / 3)
_LOG_ASPECTS = math.log(ASPECTS[0]), math.log(ASPECTS[1])
TRIES = 10

STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
"""Per-channel mean and standard deviation of RGB in [0, 1]."""


class Crop(NamedTuple):
    """A crop in whole pixels."""

    top: int
    left: int
    height: int
    width: int


Size = tuple[int, int]
"""(width, height), as Pillow has it."""
Box = tuple[float, float, float, float]
Colour = tuple[float, float, float, float, float]
"""Factors of brightness, contrast and saturation, shift of hue in turns, and 1.0 for grey."""


@dataclass(frozen=True)
class ViewOptions:
    """What views are drawn from. What is off draws no random number."""

    min_area: float = 0.0
    """Least share of the image's area that a crop covers."""
    max_area: float = 1.0
    """Largest such share."""
    flip: float = 0.0
    """Probability that a view is mirrored left to right."""
    brightness: float = 0.0
    """Strength s: the factor is drawn from [max(0, 1 - s), 1 + s]; so for the next two."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Largest shift of the hue in turns, at most 0.5, either way."""
    grey: float = 0.0
    """Probability that a view loses its colour."""

    @property
    def coloured(self) -> bool:
        """Whether colours are drawn at all."""
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.grey))


class ViewDraw(NamedTuple):
    """All that chance decides about one view."""

    crop: Crop
    box: Box
    """(x0, y0, x1, y1) in [0, 1]; x0 and x1 change places when flipped."""
    flip: bool = False
    colour: Colour | None = None
    """None where nothing about colour is switched on."""


class View(NamedTuple):
    """One view: pixels uint8 [size, size, 3] and its box (x0, y0, x1, y1) in [0, 1], float32."""

    pixels: NDArray[np.uint8]
    box: NDArray[np.float32]


def draw_crop(
    width: int, height: int, rng: random.Random, min_area: float = 0.0, max_area: float = 1.0
) -> Crop:
    """Draw a crop of random area share and aspect, at a random place.

    Draws, in this order: up to ten times area and log-aspect until the crop fits, then row and
    column. If none of the ten fits: the largest centred crop with an allowed aspect.
    """
    low, high = _LOG_ASPECTS
    for _ in range(TRIES):
        area = rng.uniform(min_area, max_area) * (width * height)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = rng.randint(0, height - h)
            left = rng.randint(0, width - w)
            return Crop(top, left, h, w)
    return _centre_crop(width, height)


def _centre_crop(width: int, height: int) -> Crop:
    w, h = width, height
    if width / height < ASPECTS[0]:
        h = round(width / ASPECTS[0])
    elif width / height > ASPECTS[1]:
        w = round(height * ASPECTS[1])
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def draw_views(
    sizes: tuple[Size, Size], rng: random.Random, options: ViewOptions
) -> tuple[ViewDraw, ViewDraw]:
    """Draw the two views of a sample whose images have these sizes (one image: its size twice).

    Draws, in this order: the crops, the flips, the colours, each of view 1, then of view 2.
    """
    crops = [draw_crop(*size, rng, options.min_area, options.max_area) for size in sizes]
    flips = [options.flip > 0 and rng.random() < options.flip for _ in crops]
    colours = [_draw_colour(rng, options) if options.coloured else None for _ in crops]
    first, second = (
        ViewDraw(crop, _mirrored(_box(crop, *size)) if flip else _box(crop, *size), flip, colour)
        for size, crop, flip, colour in zip(sizes, crops, flips, colours, strict=True)
    )
    return first, second


def _draw_colour(rng: random.Random, options: ViewOptions) -> Colour:
    brightness, contrast, saturation = (
        rng.uniform(max(0.0, 1 - strength), 1 + strength) if strength else 1.0
        for strength in (options.brightness, options.contrast, options.saturation)
    )
    hue = rng.uniform(-options.hue, options.hue) if options.hue else 0.0
    grey = float(options.grey > 0 and rng.random() < options.grey)
    return brightness, contrast, saturation, hue, grey


def _mirrored(box: Box) -> Box:
    return box[2], box[1], box[0], box[3]


def _box(crop: Crop, width: int, height: int) -> Box:
    across, down = max(width - 1, 1), max(height - 1, 1)
    return (
        crop.left / across,
        crop.top / down,
        (crop.left + crop.width - 1) / across,
        (crop.top + crop.height - 1) / down,
    )


def crop_box(crop: Crop, width: int, height: int) -> NDArray[np.float32]:
    """(x0, y0, x1, y1) of the crop's first and last pixel over (size - 1); 0 where a side is 1 px."""
    return np.array(_box(crop, width, height), np.float32)


def cut_view(image: Image.Image, draw: ViewDraw, size: int) -> NDArray[np.uint8]:
    """A view's pixels, uint8 [size, size, 3], from an RGB image (Pillow's bilinear, antialiased)."""
    crop = draw.crop
    # Cut first, then resize: the filter must not see pixels outside the crop.
    region = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    # Width, then height. In one call Pillow 13 turns that round for some tall crops, and rounds otherwise.
    narrowed = region.resize((size, crop.height), Image.Resampling.BILINEAR)
    resized = narrowed.resize((size, size), Image.Resampling.BILINEAR)
    if draw.flip:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def make_view(image: Image.Image, size: int, rng: random.Random, min_area: float = 0.0) -> View:
    """Draw one crop of an RGB image and resize it to size x size."""
    crop = draw_crop(image.width, image.height, rng, min_area)
    box = _box(crop, image.width, image.height)
    return View(cut_view(image, ViewDraw(crop, box), size), np.array(box, np.float32))


def sample_rng(seed: int, epoch: int, sample: int) -> random.Random:
    """The generator of one sample in one epoch, whichever rank or worker draws from it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{sample}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))  # noqa: S311 - crops, not secrets
