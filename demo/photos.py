"""Real photographs that installed packages ship, cut into tiles to train on: nothing is downloaded."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hvc.base.errors import HvcError

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Photo:
    """A file inside an installed package, and its share of the training tiles."""

    package: str
    path: str
    share: int = 1

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.path).stem


TRAINING = (
    Photo("skimage", "data/astronaut.png", share=3),
    Photo("skimage", "data/camera.png", share=2),
    Photo("skimage", "data/motorcycle_left.png", share=3),
    Photo("skimage", "data/motorcycle_right.png", share=3),
    Photo("skimage", "data/rocket.jpg", share=2),
    Photo("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", share=3),
    Photo("skimage", "data/coins.png"),
    Photo("skimage", "data/ihc.png"),
    Photo("skimage", "data/brick.png"),
    Photo("skimage", "data/grass.png"),
    Photo("skimage", "data/gravel.png"),
)
"""Scenes, and a few pure textures with a smaller share."""

CHELSEA = Photo("skimage", "data/chelsea.png")
COFFEE = Photo("skimage", "data/coffee.png")
FLOWER = Photo("sklearn", "datasets/images/flower.jpg")
CHINA = Photo("sklearn", "datasets/images/china.jpg")
HELD_OUT = (CHELSEA, COFFEE, FLOWER, CHINA)
"""Never tiled for training: the clip that is scored is made of these."""

_SMALLEST = 0.45  # of the largest box that fits
_ASPECTS = (4 / 3, 1.0, 3 / 4)


def open_photo(photo: Photo) -> Image.Image:
    """The photograph in RGB; HvcError says what to install when it is not there."""
    spec = importlib.util.find_spec(photo.package)  # finds the folder, runs nothing
    if spec is None or spec.origin is None:
        raise HvcError(f"the demo needs the package {photo.package}; run: pip install 'hvc[demo]'")
    path = Path(spec.origin).parent / photo.path
    if not path.is_file():
        raise HvcError(
            f"{path} is missing from its package; run: pip install --force-reinstall 'hvc[demo]'"
        )
    with Image.open(path) as image:
        return image.convert("RGB")


def collect_photos(out: Path, side: int = 320, count: int = 400) -> int:
    """Write `count` tiles of the training photos as `out/NAME_000.jpg`; return how many there are.

    A tile is a real crop, shrunk where its longer edge exceeds `side` pixels and never enlarged. Tiles
    of one photo overlap. The same arguments give the same files. Raises HvcError when a package is
    missing or the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for photo, tiles in zip(TRAINING, split_count(count, [p.share for p in TRAINING]), strict=True):
            image = open_photo(photo)
            for number, box in enumerate(plan_tiles(image.size, tiles)):
                tile = image.crop(box)
                tile.thumbnail((side, side), Image.Resampling.LANCZOS)
                tile.save(out / f"{photo.name}_{number:03d}.jpg", quality=JPEG_QUALITY)
    except OSError as error:
        raise HvcError(f"cannot write photos to {out}: {error.strerror or error}") from None
    return count


def split_count(count: int, shares: list[int]) -> list[int]:
    """`count` split in proportion to `shares`: whole numbers, their sum exact."""
    total, given, before, parts = sum(shares), 0, 0, []
    for share in shares:
        before += share
        parts.append(count * before // total - given)
        given += parts[-1]
    return parts


def plan_tiles(size: tuple[int, int], count: int) -> Iterator[tuple[int, int, int, int]]:
    """`count` boxes (left, top, right, bottom) in an image of `size` (width, height) pixels.

    Shapes take turns; scale and corner follow a sequence of low discrepancy, so that any number of
    tiles covers the photo evenly and no two are the same.
    """
    width, height = size
    for k in range(count):
        aspect = _ASPECTS[k % len(_ASPECTS)]
        # powers of 1/1.2207: the golden section's counterpart in three dimensions
        zoom, across, down = (0.5 + k * step for step in (0.8191725134, 0.6710436067, 0.5497004779))
        fit = min(width, height * aspect) * (_SMALLEST + (1 - _SMALLEST) * (zoom % 1.0))
        w, h = max(1, int(fit)), max(1, int(fit / aspect))
        left, top = int(across % 1.0 * (width - w + 1)), int(down % 1.0 * (height - h + 1))
        yield left, top, left + w, top + h
