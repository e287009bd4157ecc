"""Decoded images on their way from loader to device: the pixels that a batch's crops need, back to back.

One buffer instead of a tensor per image: one copy to the device, whatever the sizes. Pixels keep
Pillow's own four bytes (R, G, B, unused), so that a row of a crop is one plain copy of memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from hvc.pretrain.data.decode import Pixels
from hvc.pretrain.data.slots import Slots
from hvc.pretrain.data.views import Crop, ViewDraw

Picture = Image.Image | Pixels
"""A decoded RGB image."""
Source = Picture | tuple[Picture, Picture]
"""Where a sample's two views are cut from: one image, or one each."""

_Place = tuple[int, int, int, int, int]


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
    """Pack images that are decoded already; see `Packer`."""
    packer = Packer(slots)
    for source, pair in zip(sources, draws, strict=True):
        packer.add(source, pair)
    return packer.finish()


class Packer:
    """Copies out of images what their two views need, one sample at a time, as they are decoded.

    So one decoded image is held and not a batch of them, and the memory it lay in, still in the CPU's
    cache, is used for the next. With `slots` (in a loader process: always the same) the pixels lie in
    memory that reaches the training process uncopied.
    """

    def __init__(self, slots: Slots | None = None) -> None:
        self._slots = slots
        self._used: int = 0  # pixels
        self._usual: int = 0  # pixels of the largest part yet
        self._clear()

    def add(self, source: Source, pair: tuple[ViewDraw, ViewDraw]) -> None:
        """Take a sample: one region around both crops, or two where that is fewer pixels."""
        images = source if isinstance(source, tuple) else (source, source)
        for views, region in _cover(pair[0].crop, pair[1].crop, apart=isinstance(source, tuple)):
            start, end = self._used, self._used + region.height * region.width
            if end > len(self._words):
                self._make_room(end)
            target = self._words[start:end].reshape(region.height, region.width)
            target[...] = _pixels(images[views[0]], region)
            for view in views:
                self._places[view].append(_place(pair[view], region, start))
            self._used = end

    def finish(self) -> Packed:
        """The samples so far; what is added from now on belongs to the next part."""
        pixels = self._buffer[: 4 * self._used].view(self._used, 4)
        places = torch.tensor(self._places, dtype=torch.int64).reshape(2, -1, 5)
        packed = Packed(pixels, places, self._lease)
        self._usual = max(self._usual, len(pixels))
        self._clear()
        return packed

    def _clear(self) -> None:
        self._places: tuple[list[_Place], list[_Place]] = ([], [])
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._lease: Tensor | None = None
        self._words: Pixels = np.empty(0, np.uint32)
        self._used = 0

    def _make_room(self, pixels: int) -> None:
        """Go on in a larger buffer; once parts have had their usual size, the first one is enough."""
        length = 4 * max(pixels, 2 * self._used, self._usual)
        buffer, lease = self._slots.take(length) if self._slots else (_room(length), None)
        words = buffer[: len(buffer) // 4 * 4].numpy().view(np.uint32)
        words[: self._used] = self._words[: self._used]
        if self._lease is not None:
            self._lease.fill_(0)
        self._buffer, self._lease, self._words = buffer, lease, words


def _room(length: int) -> Tensor:
    return torch.empty(length + length // 4, dtype=torch.uint8)


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


def _place(draw: ViewDraw, region: Crop, offset: int) -> _Place:
    crop = draw.crop
    start = offset + (crop.top - region.top) * region.width + crop.left - region.left
    return start, region.width, crop.height, crop.width, int(draw.flip)


def _pixels(picture: Picture, region: Crop) -> Pixels:
    """A region of an RGB image, uint32 [height, width], each pixel its four bytes in memory."""
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    if not isinstance(picture, Image.Image):
        return picture[rows, columns]
    try:
        # Pillow lends its memory through Arrow; `np.asarray(image)` is two copies, byte by byte.
        lent = pa.array(picture).flatten()  # no `to_numpy`, which imports pandas
    except ValueError:  # a large image lies in several blocks
        cut = picture.crop((columns.start, rows.start, columns.stop, rows.stop))
        return np.frombuffer(cut.tobytes("raw", "RGBX"), np.uint32).reshape(region.height, region.width)
    count = picture.height * picture.width
    words = np.frombuffer(lent.buffers()[1], np.uint32, count, lent.offset)
    return words.reshape(picture.height, picture.width)[rows, columns]
