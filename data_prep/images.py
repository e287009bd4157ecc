"""Is this file an image that training can read? Decided once, when shards are made."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
"""Pillow's format name -> extension of the member in the shard."""

EXTENSIONS = frozenset(FORMATS.values())
"""Extensions of image members."""

_READERS = tuple(name for name in FORMATS if name != "MPO")  # Pillow reads MPO by its JPEG reader

_RANGELESS = {"I": "32-bit integer", "F": "32-bit float"}  # Pillow's modes

MAX_PIXELS = 100_000_000
"""Default limit on width x height."""


@dataclass(frozen=True)
class ImageInfo:
    """A readable image: size in pixels, Pillow's format name, and the extension that fits it."""

    width: int
    height: int
    format: str
    ext: str


@dataclass(frozen=True)
class Reject:
    """Why a file is left out."""

    reason: str


def check(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageInfo | Reject:
    """Decode a file completely; never raises for bad data and never prints.

    The format is what the bytes say, whatever the file is called. Grey, CMYK, palette and 16-bit
    images pass; images of 32-bit integers or floats don't.
    """
    if not data:
        return Reject("empty file")
    with _strict(max_pixels):
        try:
            with Image.open(io.BytesIO(data), formats=_READERS) as image:
                image.load()
                image_format, size, mode = image.format or "", image.size, image.mode
        except UnidentifiedImageError:
            return Reject("not an image, or of an unknown format")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return Reject(f"more than {max_pixels} pixels")
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 (on damaged data decoders raise nearly everything)
            return Reject(f"cannot be decoded: {_one_line(error)}")
    if mode in _RANGELESS:
        return Reject(f"{_RANGELESS[mode]} samples have no fixed range to show as colours")
    return ImageInfo(*size, image_format, FORMATS[image_format])


@contextmanager
def _strict(max_pixels: int) -> Iterator[None]:
    """Pillow with our limit, its warning about bombs an error, and all other warnings silent."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
