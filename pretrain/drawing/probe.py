"""A few fixed images of the dataset, on which all pictures of a run's features are made."""

import logging
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.data.decode import UndecodableError, decode
from hvc.pretrain.data.reader import CorruptSampleError, SampleReader
from hvc.pretrain.recipe import TrainConfig

TRIES = 8
"""Neighbours that are tried in place of a corrupt sample."""
_log = logging.getLogger(__name__)


def probe_images(data: TrainingData, config: TrainConfig, count: int = 6) -> Tensor:
    """Centre squares of images spread evenly over the dataset, resized to the recipe's view size.

    They depend on the dataset, the size and the count alone: the same in every attempt and on every
    number of ranks. A corrupt sample is passed over for the next one.

    Returns:
        uint8 RGB [n, S, S, 3], S = views.size; n is less than `count` where there are fewer images.

    Raises:
        HvcError: a shard, index or store cannot be read.
    """
    size = config.views.size
    reader = SampleReader(data, config.stream)
    try:
        squares = [_first_good(reader, places, size) for places in probe_samples(data.samples, count)]
    finally:
        reader.close()
    found = [square for square in squares if square is not None]
    return torch.stack(found) if found else torch.zeros((0, size, size, 3), dtype=torch.uint8)


def probe_samples(samples: int, count: int) -> list[list[int]]:
    """For each of at most `count` images the sample numbers to try, in order; no number comes twice.

    The first of each lies in the middle of its equal share of 0..samples-1, the others behind it.
    """
    count = min(count, samples)
    ends = [samples * number // count for number in range(count + 1)] if count else [0]
    middles = [(start + end - 1) // 2 for start, end in pairwise(ends)]
    return [
        list(range(middle, min(middle + TRIES, end))) for middle, end in zip(middles, ends[1:], strict=True)
    ]


def _first_good(reader: SampleReader, samples: list[int], size: int) -> Tensor | None:
    for sample in samples:
        try:
            image = decode(reader.image_bytes(sample))
        except (CorruptSampleError, UndecodableError) as error:
            _log.info("no picture of sample %d: %s", sample, error)
        else:
            return torch.from_numpy(np.array(centre_square(image, size)))
    return None


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of an image, resized to size x size (Pillow's Lanczos filter)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)
