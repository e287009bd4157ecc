"""Objects cut out of photos along outlines drawn by hand, and placed into a frame."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from hvc.demo.photos import CHELSEA, COFFEE, FLOWER, Photo, open_photo

_FINE = 4  # the outline is filled at this many times the photo's resolution
_FEATHER = 0.6  # blur of the edge, in pixels of the frame


@dataclass(frozen=True)
class Cutout:
    """An object of a photo: points (x, y) on its outline in the photo's pixels, in order."""

    photo: Photo
    outline: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and height in frame heights from the top left, angle in degrees."""

    x: float
    y: float
    height: float
    angle: float


CAT = Cutout(
    CHELSEA,
    (
        *((62, 40), (85, 14), (140, 3), (210, 2), (280, 3), (326, 18), (346, 50), (357, 90), (361, 125)),
        *((357, 158), (340, 188), (320, 208), (316, 238), (298, 262), (262, 277), (225, 281), (180, 273)),
        *((135, 252), (98, 225), (68, 195), (50, 160), (44, 120), (48, 75)),
    ),
)
CUP = Cutout(
    COFFEE,
    (
        *((181, 72), (196, 47), (225, 28), (262, 19), (300, 18), (340, 26), (375, 44), (396, 66)),
        *((408, 67), (422, 70), (424, 82), (418, 104), (450, 142), (470, 182), (479, 228), (470, 275)),
        *((445, 320), (405, 357), (350, 381), (290, 389), (230, 381), (172, 357), (122, 318), (90, 270)),
        *((78, 225), (82, 175), (100, 132), (135, 97)),
    ),
)
DAHLIA = Cutout(
    FLOWER,
    (
        *((300, 88), (316, 86), (332, 92), (350, 94), (380, 102), (390, 114), (408, 122), (412, 134)),
        *((427, 145), (431, 165), (441, 190), (445, 215), (444, 243), (437, 262), (426, 288), (414, 305)),
        *((405, 325), (385, 338), (362, 347), (345, 354), (322, 358), (300, 359), (280, 353), (250, 349)),
        *((235, 340), (215, 327), (203, 314), (190, 297), (181, 283), (175, 262), (170, 240), (169, 220)),
        *((172, 204), (177, 185), (177, 172), (190, 165), (188, 145), (203, 135), (208, 120), (225, 113)),
        *((240, 102), (265, 96), (285, 94)),
    ),
)


def cut(
    cutout: Cutout, pose: Pose, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The object placed into a frame of `size` (width, height).

    Returns its pixels [H, W, 3] (0..255) and how much of each pixel it covers [H, W] (0..1).
    """
    height = size[1]
    photo, cover, box = _shrunk(cutout, round(1.3 * pose.height * height))
    factor = (box[3] - box[1]) / (pose.height * height)  # shrunk photo's pixels per frame pixel
    cos, sin = math.cos(math.radians(pose.angle)) * factor, math.sin(math.radians(pose.angle)) * factor
    x, y = pose.x * height, pose.y * height
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inverse = (cos, sin, middle_x - cos * x - sin * y, -sin, cos, middle_y + sin * x - cos * y)
    method, filtering = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    pixels = photo.transform(size, method, inverse, filtering)
    alpha = cover.transform(size, method, inverse, filtering).filter(ImageFilter.GaussianBlur(_FEATHER))
    return np.asarray(pixels, np.float32), np.asarray(alpha, np.float32) / np.float32(255)


@lru_cache(maxsize=64)
def _shrunk(cutout: Cutout, height: int) -> tuple[Image.Image, Image.Image, tuple[float, ...]]:
    """Photo and cover reduced until the object is `height` pixels high (no aliasing later), and its box."""
    photo = open_photo(cutout.photo)
    points = smooth(cutout.outline)
    fine = Image.new("L", (photo.width * _FINE, photo.height * _FINE))
    ImageDraw.Draw(fine).polygon([(x * _FINE, y * _FINE) for x, y in points], fill=255)
    box = (points[:, 0].min(), points[:, 1].min(), points[:, 0].max(), points[:, 1].max())
    scale = min(1.0, height / (box[3] - box[1]))
    small = (round(photo.width * scale), round(photo.height * scale))
    photo = photo.resize(small, Image.Resampling.LANCZOS)
    cover = fine.resize(small, Image.Resampling.BOX)  # plain areas: a sharper filter would ring inside
    return photo, cover, tuple(float(value) * scale for value in box)


def smooth(outline: tuple[tuple[float, float], ...], steps: int = 8) -> NDArray[np.float64]:
    """A closed curve through all points of the outline [len(outline) * steps, 2] (Catmull-Rom)."""
    points = np.asarray(outline, np.float64)
    slopes = (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))[:, None] / 2
    next_slopes = np.roll(slopes, -1, axis=0)
    rise = (np.roll(points, -1, axis=0) - points)[:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = points[:, None] + slopes * t
    curve = curve + (3 * rise - 2 * slopes - next_slopes) * t**2 + (slopes + next_slopes - 2 * rise) * t**3
    return curve.reshape(-1, 2)
