"""Label maps as PNG files: object ids per pixel, in the way of the DAVIS datasets."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError, PlaceError
from hvc.evaluation.layouts.images import load_image

VOID = 255
"""Pixels of a multi-object mask that belong to nobody and are not background either."""
MAX_IDS = 64
"""More ids than this in one mask mean that it is a picture, not a label map."""


def read_mask(
    path: Path, *, black_and_white: bool = True, single_object: bool = False
) -> NDArray[np.uint8]:
    """Read a palette or grey PNG as object ids, uint8 [H, W]: 0 background, 1..254 objects, 255 void.

    Args:
        path: the file.
        black_and_white: a grey mask of only 0 and 255 is a single-object mask and comes back as 0 and
            1. Without it 255 stays void: a frame of several objects may show none of them.
        single_object: there is one object only, so that 255 alone is it in a palette mask, too.

    Raises HvcError when the file is missing, damaged, larger than 64 megapixels or no label map.
    """
    image = load_image(path)
    ids = _indices(image, path)
    present = np.flatnonzero(Image.fromarray(ids).histogram())  # a third of the time of np.unique
    if len(present) > MAX_IDS:
        raise HvcError(
            f"{path}: {len(present)} different values are too many for object ids; "
            "is it a picture, or a mask with softened edges? Save hard ids 0, 1, 2, ..."
        )
    one = single_object or (black_and_white and image.mode != "P")
    if one and set(present.tolist()) <= {0, VOID}:
        ids = (ids > 0).astype(np.uint8)
    return ids


def _indices(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode in ("P", "L", "1"):
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("RGB", "RGBA", "LA"):  # some data sets store grey masks with three equal channels
        colours = np.asarray(image.convert("RGB"))
        if (colours == colours[:, :, :1]).all():
            return colours[:, :, 0].copy()
    raise HvcError(
        f"{path}: a mask must be a palette or 8-bit grey PNG of object ids, this one's mode is {image.mode}"
    )


def write_mask(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write object ids, uint8 [H, W], as a PNG with the DAVIS palette (ids stay readable as indices)."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette(palette().tobytes())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
    except OSError as error:
        reason = error.strerror or error
        raise PlaceError(f"cannot write {path}: {reason}; free space or choose another output") from None


@cache
def palette() -> NDArray[np.uint8]:
    """The colour of every id, uint8 [256, 3]: PASCAL VOC's rule, which DAVIS took over.

    Bit b of the id, counted in threes, sets a bit of red, green, blue from the top: ids 1, 2, 3
    are dark red, dark green, dark yellow.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    colours.setflags(write=False)
    return colours
