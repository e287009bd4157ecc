"""Decoded images on their way from loader to device: the pixels that a batch's crops need, back to back.

One buffer instead of a tensor per image: one copy to the device, whatever the sizes. Pixels keep
Pillow's own four bytes (R, G, B, unused), so that a row of a crop is one plain copy of memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hvc.pretrain.slots import Slots
from hvc.pretrain.views import Crop, ViewDraw

Source = Image.Image | tuple[Image.Image, Image.Image]
"""Where a sample's two views are cut from: one RGB image, or one each."""


class Packed(NamedTuple):
    """The pixels of B samples, and where each sample's two views lie in them.

    pixels: uint8 [P, 4], on the host or the device.
    places: int64 [2, B, 5], always on the host: (start, stride, height, width, flip) of view v of
        sample b; its pixel (y, x) is `pixels[start + y * stride + x]`; flip is 0 or 1.
    lease: of the slot that the pixels lie in, if they do (`slots.py`); see `release`.
    """

    pixels: Tensor
    places: Tensor
    lease: Tensor | None = None

    def to(self, device: torch.device) -> "Packed":
        """The same with its pixels on a device; what is planned from, the places, stays here.

        From pinned memory the copy runs on while this returns.
        """
        return self._replace(pixels=self.pixels.to(device, non_blocking=True))

    def pin_memory(self) -> "Packed":
        """A copy in pinned memory; the slot is given back (a DataLoader that pins calls this)."""
        return merge([self], pin=True)

    def release(self) -> None:
        """Give the slot back to the loader process: the pixels are not read any more."""
        if self.lease is not None:
            self.lease.fill_(0)


def pack(
    sources: Sequence[Source], draws: Sequence[tuple[ViewDraw, ViewDraw]], slots: Slots | None = None
) -> Packed:
    """Copy out of RGB images what their two views need.

    One region around both crops, or two where that is fewer pixels. With `slots` (in a loader
    process: always the same) the pixels lie in memory that reaches the training process uncopied.
    """
    regions: list[tuple[Image.Image, Crop]] = []
    places = np.empty((2, len(draws), 5), np.int64)
    total = 0
    for sample, (source, pair) in enumerate(zip(sources, draws, strict=True)):
        images = source if isinstance(source, tuple) else (source, source)
        for views, region in _cover(pair[0].crop, pair[1].crop, apart=isinstance(source, tuple)):
            regions.append((images[views[0]], region))
            for view in views:
                places[view, sample] = _place(pair[view], region, total)
            total += region.height * region.width
    buffer, lease = slots.take(4 * total) if slots else (torch.empty(4 * total, dtype=torch.uint8), None)
    pixels = buffer[: 4 * total].view(total, 4)
    words = pixels.numpy().view(np.uint32)[:, 0]
    start = 0
    for image, region in regions:
        end = start + region.height * region.width
        words[start:end].reshape(region.height, region.width)[...] = _pixels(image, region)
        start = end
    return Packed(pixels, torch.from_numpy(places), lease)


def merge(parts: Sequence[Packed], *, pin: bool = False) -> Packed:
    """The samples of parts on the host, in order, as one; the parts are released."""
    if len(parts) == 1 and parts[0].lease is None and not pin:
        return parts[0]  # nobody else wants its memory
    places = [part.places.clone() for part in parts]
    start = 0
    for part, moved in zip(parts, places, strict=True):
        moved[..., 0] += start
        start += len(part.pixels)
    pixels = torch.empty((start, 4), dtype=torch.uint8, pin_memory=pin)
    torch.cat([part.pixels for part in parts], out=pixels)
    for part in parts:
        part.release()
    return Packed(pixels, torch.cat(places, dim=1))


def _cover(first: Crop, second: Crop, *, apart: bool) -> list[tuple[tuple[int, ...], Crop]]:
    """Regions that hold both crops, each with the views that lie in it."""
    top, left = min(first.top, second.top), min(first.left, second.left)
    bottom = max(first.top + first.height, second.top + second.height)
    right = max(first.left + first.width, second.left + second.width)
    single = first.height * first.width + second.height * second.width
    if apart or single < (bottom - top) * (right - left):
        return [((0,), first), ((1,), second)]
    return [((0, 1), Crop(top, left, bottom - top, right - left))]


def _place(draw: ViewDraw, region: Crop, offset: int) -> tuple[int, int, int, int, int]:
    crop = draw.crop
    start = offset + (crop.top - region.top) * region.width + crop.left - region.left
    return start, region.width, crop.height, crop.width, int(draw.flip)


def _pixels(image: Image.Image, region: Crop) -> NDArray[np.uint32]:
    """A region of an RGB image, uint32 [height, width], each pixel its four bytes in memory."""
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    try:
        # Pillow lends its memory through Arrow; `np.asarray(image)` is two copies, byte by byte.
        lent = pa.array(image).flatten().to_numpy()
    except ValueError:  # a large image lies in several blocks
        cut = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        return np.frombuffer(cut.tobytes("raw", "RGBX"), np.uint32).reshape(region.height, region.width)
    return lent.view(np.uint32).reshape(image.height, image.width)[rows, columns]
