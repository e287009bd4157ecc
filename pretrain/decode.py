"""Encoded bytes to an RGB image."""

import io

import numpy as np
from PIL import Image

from hvc.data_prep.images import FORMATS

_READERS = tuple(name for name in FORMATS if name != "MPO")  # Pillow reads MPO by its JPEG reader


class UndecodableError(ValueError):
    """These bytes are no image, or a damaged one; the message says what the decoder said."""


def decode(data: bytes) -> Image.Image:
    """The RGB image, decoded completely."""
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
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)
        image = Image.fromarray(grey)
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")
