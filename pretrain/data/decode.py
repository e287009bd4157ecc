"""Encoded bytes to RGB pixels, as Pillow has them.

JPEGs go through simplejpeg where that is installed: the same decoder below (libjpeg-turbo, its exact
settings), without Pillow's parsing, piecewise feeding and copies. It only takes what is whole and plain.
All else is for Pillow, which alone decides what is damaged: the pixels and verdicts are Pillow's.
"""

import io
from importlib import import_module
from types import ModuleType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from hvc.data_prep.decoding import to_eight_bits
from hvc.data_prep.images import FORMATS

Pixels = NDArray[np.uint32]
"""RGB pixels [height, width], each the four bytes (R, G, B, unused) that Pillow has in memory."""

_READERS = tuple(name for name in FORMATS if name != "MPO")  # Pillow reads MPO by its JPEG reader
_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8\xff", b"\xff\xd9"

simplejpeg: ModuleType | None
"""None where the extra `fast` is not installed."""
try:
    simplejpeg = import_module("simplejpeg")
except ImportError:
    simplejpeg = None


class UndecodableError(ValueError):
    """These bytes are no image, or a damaged one; the message says what the decoder said."""


def decode(data: bytes) -> Image.Image:
    """The RGB image, decoded completely; UndecodableError if that cannot be done."""
    pixels = decode_jpeg(data)
    return decode_by_pillow(data) if pixels is None else _as_image(pixels)


def decode_pixels(data: bytes) -> Pixels | Image.Image:
    """The same as bare pixels, where these are there without a copy."""
    pixels = decode_jpeg(data)
    return decode_by_pillow(data) if pixels is None else pixels


def decode_jpeg(data: bytes) -> Pixels | None:
    """Pixels of a JPEG by simplejpeg; None where Pillow has to look, as at whatever is not in order."""
    if simplejpeg is None or not data.startswith(_JPEG_BEGINS) or not data.endswith(_JPEG_ENDS):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGBX")
    except ValueError:
        return None
    return pixels.view(np.uint32)[..., 0]


def decode_by_pillow(data: bytes) -> Image.Image:
    """The RGB image as Pillow decodes it."""
    try:
        with Image.open(io.BytesIO(data), formats=_READERS) as image:
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (on damaged data decoders raise nearly everything)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UndecodableError(f"it cannot be decoded ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; 16-bit grey is scaled (Pillow itself would cut it off at 255)."""
    if image.mode == "RGB":
        image.load()
        return image
    return to_eight_bits(image).convert("RGB")


def _as_image(pixels: Pixels) -> Image.Image:
    """A Pillow image that lives in the same memory."""
    height, width = pixels.shape
    flat = pa.Array.from_buffers(pa.uint8(), 4 * height * width, [None, pa.py_buffer(pixels)])
    return Image.fromarrow(pa.FixedSizeListArray.from_arrays(flat, 4), "RGB", (width, height))
