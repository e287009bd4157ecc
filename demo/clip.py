"""A short clip with exact masks: real cut-outs moving over a real photo.

The four photos are held out (`photos.HELD_OUT`): no training tile comes from them. The motion is
drawn, not filmed, so a score on this clip shows that the way from photos to scores works; it says
little about real video.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError
from hvc.demo.cutouts import CAT, CUP, DAHLIA, Cutout, Pose, cut
from hvc.demo.photos import CHINA, open_photo
from hvc.evaluation.layouts.masks import write_mask

JPEG_QUALITY = 90
NOISE = 3.0  # standard deviation, in grey levels of 255


@dataclass(frozen=True)
class Actor:
    """An object of the clip: its id in the masks is its place in `ACTORS`, from 1."""

    cutout: Cutout
    pose: Callable[[float], Pose]


def _cat(t: float) -> Pose:
    return Pose(0.30 + 0.46 * t, 0.70 - 0.07 * math.sin(math.pi * t), 0.45 + 0.05 * t, -6 + 16 * t)


def _dahlia(t: float) -> Pose:
    return Pose(0.84 + 0.52 * t, 0.22 + 0.22 * t * t, 0.35 - 0.04 * t, -50 * t)


def _cup(t: float) -> Pose:
    return Pose(1.42 - 0.46 * t, 0.72 - 0.28 * t, 0.42 + 0.04 * math.sin(math.pi * t), 10 * math.sin(3 * t))


ACTORS = (Actor(CAT, _cat), Actor(DAHLIA, _dahlia), Actor(CUP, _cup))
"""From the back to the front: the cup passes before the flower."""


def make_clip(folder: Path, frames: int = 20, size: tuple[int, int] = (320, 180)) -> None:
    """Write `folder/frames/00000.jpg ...` and `folder/masks/00000.png ...`, a mask for every frame.

    Masks are palette PNGs with the ids 1, 2, 3 (0 is background) in the colours of DAVIS. `size` is
    (width, height) in pixels. The same arguments give the same files, and replace those of an
    earlier call; frames of a longer clip stay. Raises HvcError when the photos' packages are missing
    or the folder cannot be written.
    """
    noise = np.random.default_rng(20)
    try:
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        for number in range(frames):
            t = number / max(1, frames - 1)
            picture, ids = compose(t, size)
            film = develop(picture, t, noise)
            Image.fromarray(film).save(folder / "frames" / f"{number:05d}.jpg", quality=JPEG_QUALITY)
            write_mask(folder / "masks" / f"{number:05d}.png", ids)
    except OSError as error:
        raise HvcError(f"cannot write the clip to {folder}: {error.strerror or error}") from None


def compose(t: float, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The clean picture [H, W, 3] (0..255) and the ids [H, W] at time `t` (0..1).

    Edges are feathered by about a pixel in the picture; in the mask a pixel belongs to the front-most
    object that covers at least half of it.
    """
    picture = background(t, size)
    ids = np.zeros(picture.shape[:2], np.uint8)
    for number, actor in enumerate(ACTORS, start=1):
        pixels, alpha = cut(actor.cutout, actor.pose(t), size)
        picture += alpha[..., None] * (pixels - picture)
        ids[alpha >= 0.5] = number
    return picture, ids


def background(t: float, size: tuple[int, int]) -> NDArray[np.float32]:
    """The pavilion photo [H, W, 3], seen through a window that moves a little to the right."""
    photo = open_photo(CHINA)
    width = 0.86 * photo.width
    height = width * size[1] / size[0]
    left, top = (0.02 + 0.07 * t) * photo.width, photo.height - height - 0.02 * t * photo.height
    box = (left, max(0.0, top), left + width, max(0.0, top) + height)
    return np.asarray(photo.resize(size, Image.Resampling.LANCZOS, box=box), np.float32)


def develop(picture: NDArray[np.float32], t: float, noise: np.random.Generator) -> NDArray[np.uint8]:
    """The camera's part [H, W, 3]: a passing cloud, slightly cooler light, sensor noise."""
    light = 1.0 - 0.14 * math.sin(math.pi * t) * np.array([1.0, 0.95, 0.85], np.float32)
    grain = noise.normal(0.0, NOISE, picture.shape).astype(np.float32)
    return np.clip(picture * light + grain + 0.5, 0, 255).astype(np.uint8)
