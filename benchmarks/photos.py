"""Photos that benchmarks read: by default made of those that installed packages ship."""

import argparse
from pathlib import Path

from PIL import Image

from hvc.base.errors import UsageError
from hvc.demo.photos import HELD_OUT, TRAINING, open_photo, plan_tiles, split_count

COUNT = 3280
_SIDE, _QUALITY = 640, 98  # 75 kB on average, as photos of ImageNet have
_ENDINGS = {".jpg", ".jpeg"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--photos` and `--count`."""
    parser.add_argument("--photos", type=Path, help="folder of JPEGs  [default: tiles of packages' photos]")
    parser.add_argument("--count", type=int, default=COUNT, help="how many photos; they repeat if need be")


def collect(folder: Path | None, target: Path, count: int = COUNT) -> list[Path]:
    """`count` JPEGs as `target/00000.jpg` and on: tiles of packages' photos, or links to a folder's."""
    target.mkdir(parents=True)
    paths = [target / f"{number:05d}.jpg" for number in range(count)]
    if folder is None:
        _make(paths)
        return paths
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    if not found:
        raise UsageError(f"--photos {folder}: no JPEG below it")
    for number, path in enumerate(paths):
        path.symlink_to(found[number % len(found)].absolute())
    return paths


def describe(paths: list[Path]) -> str:
    """Number and mean size, for notes."""
    size = sum(path.stat().st_size for path in paths) / len(paths)
    return f"{len(paths):,} JPEGs of {size / 1e3:.0f} kB"


def _make(paths: list[Path]) -> None:
    photos = (*TRAINING, *HELD_OUT)
    rest = iter(paths)
    for photo, tiles in zip(photos, split_count(len(paths), [p.share for p in photos]), strict=True):
        image = open_photo(photo)
        for box in plan_tiles(image.size, tiles):
            tile = image.crop(box)
            tile.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            tile.save(next(rest), quality=_QUALITY)
