"""The quality gate: is this file an image that training can read? Decided once, when shards are made.

The format is what the bytes say, whatever the file is called. Grey, CMYK, palette, alpha and 16-bit
images pass; of animations and files of several pictures the first picture counts, as in training.
Images keep their bytes, also where EXIF says that they lie on their side (the orientation is noted),
unless they are to be encoded anew.
"""

from dataclasses import dataclass
from typing import Literal

FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
"""Pillow's format name -> extension of the member in the shard."""

EXTENSIONS = frozenset(FORMATS.values())
"""Extensions of image members."""

MAX_PIXELS = 100_000_000
"""Default limit on width x height."""

MAX_BYTES = 64_000_000
"""Files of more bytes are not read: a worker's memory is bounded whatever the input holds."""

QUALITY = 92
"""JPEG quality of images that are encoded anew only because of their size."""

_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # in bytes, of its several versions

Check = Literal["none", "header", "full"]


@dataclass(frozen=True)
class Gate:
    """What an image must be, and what is made of it.

    `check`: `none` looks at the first bytes, `header` reads size and mode, `full` decodes everything.
    `max_side` in pixels: an image with a longer side is made smaller and becomes a JPEG. `quality`
    (1-100) is that of such JPEGs; without `max_side` every image is encoded anew with it.
    """

    check: Check = "full"
    max_pixels: int = MAX_PIXELS
    max_side: int | None = None
    quality: int | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether Pillow has to open the files."""
        return self.check != "none" or self.max_side is not None or self.quality is not None

    def reencodes(self, longest_side: int) -> bool:
        """Whether an image whose longest side has so many pixels is encoded anew."""
        if self.max_side is None:
            return self.quality is not None
        return longest_side > self.max_side


@dataclass(frozen=True)
class ImageInfo:
    """A good image: size in pixels (None: not looked at), Pillow's format name, fitting extension.

    Size and orientation (EXIF 1-8, 1 = upright) are those of the raster that a decoder gives. `data`
    are the image's new bytes, if it was encoded anew.
    """

    width: int | None
    height: int | None
    format: str
    ext: str
    orientation: int = 1
    data: bytes | None = None
    turned: int = 1
    """EXIF orientation that was applied when the image was encoded anew."""


_UNSEEN = {name: ImageInfo(None, None, name, ext) for name, ext in FORMATS.items()}


@dataclass(frozen=True)
class Reject:
    """Why a file is left out."""

    reason: str


def check(data: bytes, gate: Gate | None = None) -> ImageInfo | Reject:
    """Put a file's content through the gate; never raises for bad data and never prints."""
    gate = gate or Gate()
    if not data:
        return Reject("empty file")
    image_format = sniff(data)
    if image_format is None:
        return Reject("not an image, or of an unknown format")
    if not gate.looks_inside:
        return _UNSEEN[image_format]
    from hvc.data_prep import decoding  # here, because Pillow is not needed to copy files

    return decoding.examine(data, image_format, gate)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes announce (a key of FORMATS), or None."""
    head = data[:18]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(_TIFF_BEGINNINGS):
        return "TIFF"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None
