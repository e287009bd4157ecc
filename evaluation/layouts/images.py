"""Reading pictures from disk, with limits and errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused: their feature maps would not fit into memory."""


def read_frame(path: Path) -> NDArray[np.uint8]:
    """Decode a picture to uint8 RGB [H, W, 3]; HvcError when it is missing, damaged or too large."""
    return np.array(load_image(path).convert("RGB"))


def load_image(path: Path) -> Image.Image:
    """A fully decoded picture in its own mode; HvcError as for `read_frame`."""
    with _naming(path):
        image = Image.open(path)
        _refuse_huge(image, path)
        image.load()
    return image


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, nothing decoded; HvcError as for `read_frame`."""
    with _naming(path), Image.open(path) as image:
        _refuse_huge(image, path)
        return image.height, image.width


def read_scaled(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture scaled to (width, height), uint8 RGB [height, width, 3]; HvcError as for `read_frame`."""
    with _naming(path), Image.open(path) as image:
        _refuse_huge(image, path)
        image.draft("RGB", size)  # a JPEG is decoded at half or a quarter of its size, if that will do
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise HvcError(f"no such file: {path}") from None
    except Image.DecompressionBombError:
        raise HvcError(f"{path}: more than {MAX_PIXELS // 10**6} megapixels; scale it down") from None
    except HvcError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's ways to say "damaged"
        raise HvcError(f"{path}: not a readable picture ({error}); copy it again") from None


def _refuse_huge(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise HvcError(f"{path}: {size} is more than {MAX_PIXELS // 10**6} megapixels; scale it down")
