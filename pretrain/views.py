"""Two random crops of one image and where they lie in it.

Both views are independent draws of the same random resized crop: no flip, no colour change. What is
drawn depends only on the generator that is handed in, so crops can be a function of (seed, epoch,
sample) and of nothing else.
"""

import hashlib
import math
import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ASPECTS = (3 / 4, 4 / 3)
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
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
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


def crop_box(crop: Crop, width: int, height: int) -> NDArray[np.float32]:
    """(x0, y0, x1, y1) of the crop's first and last pixel over (size - 1); 0 where a side is 1 px."""
    across, down = max(width - 1, 1), max(height - 1, 1)
    box = (
        crop.left / across,
        crop.top / down,
        (crop.left + crop.width - 1) / across,
        (crop.top + crop.height - 1) / down,
    )
    return np.array(box, np.float32)


def make_view(image: Image.Image, size: int, rng: random.Random, min_area: float = 0.0) -> View:
    """Draw one crop of an RGB image and resize it to size x size (Pillow's bilinear, antialiased)."""
    crop = draw_crop(image.width, image.height, rng, min_area)
    # Cut first, then resize: the filter must not see pixels outside the crop.
    region = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    resized = region.resize((size, size), Image.Resampling.BILINEAR)
    return View(np.asarray(resized), crop_box(crop, image.width, image.height))


def sample_rng(seed: int, epoch: int, sample: int) -> random.Random:
    """The generator of one sample in one epoch, whichever rank or worker draws from it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{sample}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))  # noqa: S311 - crops, not secrets
