"""A loader process's part of a batch: samples decoded, their views drawn, and cut or packed."""

import random
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import get_worker_info

from hvc.base.errors import HvcError
from hvc.pretrain.data.batch import BadSample, Part
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.data.decode import UndecodableError, decode, decode_pixels
from hvc.pretrain.data.order import Ids
from hvc.pretrain.data.packed import Packer, Picture, Source
from hvc.pretrain.data.reader import CorruptSampleError, SampleReader
from hvc.pretrain.data.slots import Slots
from hvc.pretrain.data.views import Size, ViewDraw, ViewOptions, cut_view, draw_views, sample_rng
from hvc.pretrain.recipe import TrainConfig, ViewConfig


class PartMaker:
    """Reads, decodes and draws views; a part depends on nothing but recipe, data, epoch and ids."""

    def __init__(
        self, config: TrainConfig, data: TrainingData, reader: SampleReader, *, cut_later: bool
    ) -> None:
        self._seed, self._views, self._cut_later = config.seed, config.views, cut_later
        self._data, self._reader = data, reader
        self._options = view_options(config.views)
        self._bad: list[BadSample] = []
        self.looks_ahead = reader.looks_ahead
        # More than are on their way at once: what is ready, what is being taken, what is being made.
        self._packer = Packer(Slots(config.stream.prefetch + 3) if get_worker_info() else None)
        self._decode: Callable[[bytes], Picture] = decode_pixels if cut_later else decode
        # Sharding has set the limit on purpose; Pillow's own is for files from anywhere.
        Image.MAX_IMAGE_PIXELS = max(source.manifest.made.max_pixels for source in data.sources)

    def expect(self, epoch: int, ids: Ids) -> None:
        """Let the reader know early what a coming part needs."""
        self._reader.expect(self._needed(epoch, ids))

    def prefetch(self, epoch: int, ids: Ids) -> None:
        """Let the reader know that a part comes near."""
        self._reader.prefetch(self._needed(epoch, ids))

    def part(self, epoch: int, ids: Ids) -> Part:
        """Decode the samples of these virtual ids and cut their views, or pack what cutting needs."""
        draws: list[tuple[ViewDraw, ViewDraw]] = []
        cut = torch.empty(
            (2, 0 if self._cut_later else len(ids), *(self._views.size,) * 2, 3), dtype=torch.uint8
        )
        for number, each in enumerate(ids.tolist()):
            source, draw = self._sample(epoch, each)
            draws.append(draw)
            if self._cut_later:
                self._packer.add(source, draw)
            else:
                self._cut(source, draw, cut[:, number].numpy())
            del source  # before the next one is decoded, which may have its memory
        bad, self._bad = self._bad, []
        return Part(
            self._packer.finish() if self._cut_later else cut,
            np.array([[draw.box for draw in view] for view in _by_view(draws)], np.float32).reshape(
                2, -1, 4
            ),
            _colours(draws),
            bad,
            self._reader.take_counts(),
            self._reader.trouble(),
        )

    def _sample(self, epoch: int, virtual: int) -> tuple[Source, tuple[ViewDraw, ViewDraw]]:
        rng, frames = self._frames(epoch, virtual)
        source = self._source(frames)
        images = source if isinstance(source, tuple) else (source, source)
        return source, draw_views((_size(images[0]), _size(images[1])), rng, self._options)

    def _needed(self, epoch: int, ids: Ids) -> list[int]:
        return [sample for each in ids.tolist() for sample in self._frames(epoch, each)[1]]

    def _frames(self, epoch: int, virtual: int) -> tuple[random.Random, tuple[int, ...]]:
        """A sample's generator, and the one or two samples that its views come from."""
        rng, sample = sample_rng(self._seed, epoch, virtual), virtual % self._data.samples
        if self._views.frame_gap is None:
            return rng, (sample,)
        return rng, (sample, draw_frame(sample, self._data.video_of(sample), self._views.frame_gap, rng))

    def _source(self, frames: tuple[int, ...]) -> Source:
        """The image or images; a corrupt one is left for another, and both views come from one image."""
        images = [self._image(sample) for sample in frames]
        first, last = images[0], images[-1]
        if first is None:
            return self._stand_in(frames[0])
        return first if last is None or last is first else (first, last)

    def _stand_in(self, sample: int) -> Picture:
        """The image of the next sample of the same shard that is well."""
        other = self._reader.next_in_shard(sample)
        while other != sample:
            image = self._image(other, count=False)
            if image is not None:
                return image
            other = self._reader.next_in_shard(other)
        raise HvcError(f"{self._reader.where(sample)}: no sample of it can be used; run `hvc verify`")

    def _image(self, sample: int, count: bool = True) -> Picture | None:
        try:
            try:
                return self._decode(self._reader.image_bytes(sample))
            except UndecodableError as error:
                raise self._reader.corrupt(sample, str(error)) from None
        except CorruptSampleError as error:
            if count:
                self._bad.append(BadSample(sample, str(error)))
            return None

    def _cut(self, source: Source, draw: tuple[ViewDraw, ViewDraw], target: NDArray[np.uint8]) -> None:
        images = source if isinstance(source, tuple) else (source, source)
        for view, image in enumerate(images):
            assert isinstance(image, Image.Image)
            target[view] = cut_view(image, draw[view], self._views.size)


def view_options(views: ViewConfig) -> ViewOptions:
    """What a recipe draws views from."""
    return ViewOptions(views.min_area, views.max_area, views.flip, **views.colour.model_dump())


def _size(picture: Picture) -> Size:
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def draw_frame(sample: int, video: tuple[int, int], gap: int, rng: random.Random) -> int:
    """Another frame of the video [first, end), at most `gap` away; the sample itself if there is none."""
    low, high = max(sample - gap, video[0]), min(sample + gap, video[1] - 1)
    if low == high:
        return sample
    drawn = rng.randint(low, high - 1)
    return drawn + (drawn >= sample)


def _by_view(draws: list[tuple[ViewDraw, ViewDraw]]) -> tuple[list[ViewDraw], list[ViewDraw]]:
    return [first for first, _ in draws], [second for _, second in draws]


def _colours(draws: list[tuple[ViewDraw, ViewDraw]]) -> NDArray[np.float32] | None:
    found = [[draw.colour for draw in view if draw.colour is not None] for view in _by_view(draws)]
    return np.array(found, np.float32) if found[0] else None
